"""Turns of an agent on one thread, for the agents' tests."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command


async def say(graph: CompiledStateGraph, asked: str | Command, **configurable: Any) -> list[BaseMessage]:
    """The thread's messages after this turn; on thread t unless another is named."""
    given = asked if isinstance(asked, Command) else {"messages": [("user", asked)]}
    state = await graph.ainvoke(given, {"configurable": {"thread_id": "t", **configurable}})
    return state["messages"]


async def words(graph: CompiledStateGraph, asked: str) -> AsyncIterator[str]:
    """The words of a turn on thread t as they are said."""
    given, config = {"messages": [("user", asked)]}, RunnableConfig(configurable={"thread_id": "t"})
    async for chunk, _ in graph.astream(given, config, stream_mode="messages"):
        if isinstance(chunk, AIMessageChunk) and chunk.text:
            yield chunk.text


def results(messages: list[BaseMessage]) -> list[tuple[str | None, str, str]]:
    """Each tool's name, status and words."""
    return [(m.name, m.status, m.text) for m in messages if isinstance(m, ToolMessage)]
