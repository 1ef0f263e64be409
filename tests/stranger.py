"""A stranger's agent and service, as LangGraph's own tutorials teach them: they know nothing of telemetry."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from langchain.chat_models import init_chat_model
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

# Where the weather is asked for; the test says where.
WEATHER = ""


class State(TypedDict):
    """The conversation, and what it is about."""

    messages: Annotated[list, add_messages]
    topic: str


@tool
def calculator(expression: str) -> str:
    """Multiply two numbers."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


def router(state: State) -> dict:
    return {"topic": "weather" if "weather" in state["messages"][-1].content else "sums"}


def route(state: State) -> Literal["weather", "chatbot"]:
    return "weather" if state["topic"] == "weather" else "chatbot"


def weather(state: State) -> dict:
    return {"messages": [{"role": "assistant", "content": httpx.get(WEATHER).text}]}


def chatbot(state: State) -> dict:
    llm_with_tools = init_chat_model("openai:gpt-5.5").bind_tools([calculator])
    return {"messages": [llm_with_tools.invoke(state["messages"])]}


def human(state: State) -> dict:
    return {"messages": [{"role": "user", "content": interrupt("What shall I calculate?")}]}


def build() -> FastAPI:
    graph_builder = StateGraph(State)
    graph_builder.add_node("router", router)
    graph_builder.add_node("weather", weather)
    graph_builder.add_node("chatbot", chatbot)
    graph_builder.add_node("human", human)
    graph_builder.add_node("tools", ToolNode(tools=[calculator]))
    graph_builder.add_edge(START, "router")
    graph_builder.add_conditional_edges("router", route)
    graph_builder.add_conditional_edges("chatbot", tools_condition)
    graph_builder.add_edge("tools", "chatbot")
    graph_builder.add_edge("weather", "human")
    graph_builder.add_edge("human", END)
    graph = graph_builder.compile(checkpointer=MemorySaver())

    app = FastAPI()

    @app.get("/stream")
    def stream(thread_id: str, user_input: str, answers: bool = False) -> StreamingResponse:
        config: RunnableConfig = {
            "configurable": {"thread_id": thread_id},
            "metadata": {"langfuse_user_id": "grace"},
        }
        asked: Any = {"messages": [{"role": "user", "content": user_input}]}

        def events() -> Iterator[str]:
            for event in graph.stream(Command(resume=user_input) if answers else asked, config, stream_mode="values"):
                if "messages" in event:
                    yield event["messages"][-1].content + "\n"

        return StreamingResponse(events())

    return app
