"""The workload of every variant: an agent with one tool, on a model that answers at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

SENTENCE = "It was the best of times, it was the worst of times, it was the age of wisdom; "
QUESTION = f"Please look up what the book says here. {SENTENCE * 3}"
ANSWER = SENTENCE * 3
FOUND = SENTENCE * 4
GREETING = "Good morning."

_numbers = count()


class Model(BaseChatModel):
    """Call the tool once per turn, then give the same answer, one word per chunk."""

    pace_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "bench"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:  # noqa: ARG002 - the base's signature
        return LangSmithParams(ls_provider="bench", ls_model_name="bench", ls_model_type="chat")

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Return the model with these tools."""
        return self.bind(tools=[convert_to_openai_tool(each) for each in tools], **kwargs)

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return generate_from_stream(chunks(messages))

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return generate_from_stream(chunks(messages))

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in chunks(messages):
            await asyncio.sleep(self.pace_s)
            yield chunk


def chunks(messages: Sequence[BaseMessage]) -> Iterator[ChatGenerationChunk]:
    """Yield the chunks of the answer to these messages."""
    calls = [_call()] if isinstance(messages[-1], HumanMessage) and "look up" in messages[-1].text else []
    for word in () if calls else ANSWER.split():
        yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))
    usage = {"input_tokens": len(messages), "output_tokens": 50, "total_tokens": len(messages) + 50}
    metadata = {"model_name": "bench", "finish_reason": "tool_calls" if calls else "stop"}
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            tool_call_chunks=calls,
            usage_metadata=usage,  # pyright: ignore[reportArgumentType] - a dict of its shape
            response_metadata=metadata,
            chunk_position="last",
        )
    )


def _call() -> Any:
    return tool_call_chunk(name="look_up", args='{"topic": "the age of wisdom"}', id=f"call-{next(_numbers)}", index=0)


@tool
async def look_up(topic: str) -> str:
    """Look a topic up in the book."""
    return f"{topic}: {FOUND}"


def agent(*, checkpointer: bool, pace_s: float = 0.0) -> CompiledStateGraph:
    """Return the agent: a model and a tool that alternate, built as in LangGraph's documentation."""
    model = Model(pace_s=pace_s).bind_tools([look_up])

    async def chatbot(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("chatbot", chatbot)
    graph.add_node("tools", ToolNode([look_up]))
    graph.add_edge(START, "chatbot")
    graph.add_conditional_edges("chatbot", tools_condition)
    graph.add_edge("tools", "chatbot")
    return graph.compile(checkpointer=InMemorySaver() if checkpointer else None)


@dataclass
class Conversation:
    """A conversation that grows with each turn."""

    graph: CompiledStateGraph
    thread: str
    messages: list[AnyMessage]
    streamed: bool
    callbacks: list[Any] = field(default_factory=list)
    saved: bool = False

    async def send(self, question: str) -> AsyncIterator[str]:
        """Run a turn; yield the answer word by word if it is streamed."""
        message = HumanMessage(question, id=f"m-{next(_numbers)}")
        new = [message] if self.saved else [*self.messages, message]
        self.saved = self.graph.checkpointer is not None
        self.messages.append(message)
        config = RunnableConfig(configurable={"thread_id": self.thread}, callbacks=self.callbacks)
        if not self.streamed:
            state = await self.graph.ainvoke({"messages": new}, config)
            self.messages = list(state["messages"])
            return
        async for mode, chunk in self.graph.astream({"messages": new}, config, stream_mode=["messages", "updates"]):
            if mode == "messages":
                piece = chunk[0]  # pyright: ignore[reportArgumentType] - a message and its metadata
                yield piece.text if isinstance(piece, AIMessageChunk) else ""
            else:
                self.messages += [message for update in chunk.values() for message in update["messages"]]  # pyright: ignore[reportAttributeAccessIssue] - a node's name and what it returned


def history(messages: int) -> list[AnyMessage]:
    """Return the messages of a conversation of this length: turns with a tool, and a greeting for the rest."""
    result: list[AnyMessage] = []
    for number in range(messages // 4):
        call = {"name": "look_up", "args": {"topic": "the age of wisdom"}, "id": f"call-of-{number}"}
        result += [
            HumanMessage(QUESTION),
            AIMessage("", tool_calls=[call]),
            ToolMessage(FOUND, tool_call_id=call["id"], name="look_up"),
            AIMessage(ANSWER),
        ]
    result += [HumanMessage(GREETING), AIMessage(ANSWER)] * (messages % 4 // 2)
    for message in result:
        message.id = f"m-{next(_numbers)}"
    return result
