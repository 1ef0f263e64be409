"""What an agent says is what its own model says, whatever else its tools and its middleware ask models for."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

from app.agents import Agent
from app.client import AgentClient
from app.models.models import Models
from app.schema import EndEvent, InnerTokenEvent, MessageEvent, ReasoningEvent, StreamEvent, TokenEvent
from tests.service import service
from ui.exchange import Reasoning, from_events, from_history


class Scripted(BaseChatModel):
    """Says one message after the other, word by word."""

    messages: Iterator[AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=next(self.messages))])

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        message = next(self.messages)
        for call in message.tool_calls:
            chunk = tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=0)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
        if message.additional_kwargs:
            yield ChatGenerationChunk(message=AIMessageChunk(content="", additional_kwargs=message.additional_kwargs))
        for word in re.findall(r"\S+\s*", message.text):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))

    def bind_tools(self, *_: Any, **__: Any) -> "Scripted":
        """Return itself: what it says is known."""
        return self


def scripted(*messages: AIMessage | str) -> Scripted:
    return Scripted(messages=iter([AIMessage(m) if isinstance(m, str) else m for m in messages]))


@tool
async def summary(topic: str) -> str:
    """Summarise a topic, with a model of the tool's own."""
    return (await scripted(f"inner words of the tool on {topic}").ainvoke(topic)).text


class Summarizer(AgentMiddleware):
    """Asks a model before each call, as LangChain's own does for a long conversation."""

    async def abefore_model(self, state: AgentState[Any], runtime: Any) -> None:  # noqa: ARG002 - LangChain's signature
        """Ask, and leave the conversation as it is."""
        await scripted("inner words of the middleware").ainvoke("Summarise.")


def with_inner_models(_: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """LangChain's own agent; its tool and its middleware call models."""
    calls = AIMessage("", tool_calls=[{"name": "summary", "args": {"topic": "rivers"}, "id": "c-1"}])
    answer = AIMessage("The answer.", additional_kwargs={"reasoning_content": "Rivers are long."})
    tools: list[BaseTool] = [summary]
    return create_agent(scripted(calls, answer), tools, middleware=[Summarizer()], checkpointer=checkpointer)


def guarded(verdict: str, _: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """A graph whose first node asks a model for a verdict, and tells nobody."""

    async def guard(state: MessagesState) -> None:
        await scripted(verdict).ainvoke("Is it safe?")

    async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
        if verdict == "fail":
            raise ValueError("unsafe")
        return {"messages": [await scripted("The answer.").ainvoke("Answer.")]}

    graph = StateGraph(MessagesState)
    graph.add_node("guard", guard)
    graph.add_node("answer", answer)
    graph.add_edge(START, "guard")
    graph.add_edge("guard", "answer")
    return graph.compile(checkpointer)


build_safe, build_failing = partial(guarded, "It is safe."), partial(guarded, "fail")
AGENTS = {
    "inner": Agent("Asks other models.", f"{__name__}:with_inner_models"),
    "guarded": Agent("Asks a guard.", f"{__name__}:build_safe"),
    "failing": Agent("Fails after its guard.", f"{__name__}:build_failing"),
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path, AGENTS, DEFAULT_AGENT="inner") as url:
        yield AgentClient(url, "inner")


def words(events: list[StreamEvent], kind: type[TokenEvent | InnerTokenEvent | ReasoningEvent]) -> str:
    return "".join(event.content for event in events if isinstance(event, kind))


def test_words_of_tools_and_middleware_are_not_the_answer(client: AgentClient) -> None:
    """They are streamed as what they are, with the node that asked for them."""
    events = list(client.stream("Rivers?", thread_id="t-1"))

    assert words(events, TokenEvent) == "The answer."
    assert words(events, ReasoningEvent) == "Rivers are long."
    inner = {event.node for event in events if isinstance(event, InnerTokenEvent)}
    assert inner == {"tools", "Summarizer.before_model"}
    told = [event.content for event in events if isinstance(event, MessageEvent)]
    assert [(message.type, message.content, message.reasoning) for message in told] == [
        ("ai", "", ""),
        ("tool", "inner words of the tool on rivers", ""),
        ("ai", "The answer.", "Rivers are long."),
    ]


def test_a_chat_shows_the_reasoning_apart(client: AgentClient) -> None:
    """While it is streamed, at its end, and after a reload."""
    events = list(client.stream("Rivers?", thread_id="t-1"))
    begun = from_events("Rivers?", events[: 1 + max(i for i, e in enumerate(events) if isinstance(e, ReasoningEvent))])

    assert begun.reasoning == "Rivers are long."
    live, (past,) = from_events("Rivers?", events), from_history(client.get_history("t-1"))
    assert live.parts == past.parts
    assert live.parts[-2:] == [Reasoning("Rivers are long."), "The answer."]


def test_a_guards_words_give_way_to_the_answer(client: AgentClient) -> None:
    """What no message came of is no part of the answer, as it is streamed and afterwards."""
    client.agent = "guarded"
    events = list(client.stream("Hello", thread_id="t-1"))

    last = max(index for index, event in enumerate(events) if isinstance(event, TokenEvent))
    assert from_events("Hello", events[: last + 1]).partial == "The answer."
    assert [message.content for message in client.get_history("t-1").messages] == ["Hello", "The answer."]


def test_a_guards_words_are_not_kept_of_a_turn_that_fails(client: AgentClient) -> None:
    """The thread has the question, and no partial answer that nobody gave."""
    client.agent = "failing"
    events = list(client.stream("Hello", thread_id="t-1"))

    assert isinstance(events[-1], EndEvent)
    assert events[-1].status == "failed"
    assert [message.content for message in client.get_history("t-1").messages] == ["Hello"]
