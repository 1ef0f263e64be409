"""Agents that misbehave in every way a turn has to survive; served as a process by `python -m tests.flawed_agents`."""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Event

import pytest
import uvicorn
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

import telemetry
from app.agents import AGENTS, Agent
from app.agents.react import react
from app.models.models import Models
from app.service import create_app
from app.settings import load_settings

# How long tools go on that nobody can stop; the one in a thread until somebody has seen enough.
STUBBORN_S, THREADED_S = 0.5, 1.0
enough = Event()


@tool("calculator")
async def slow(expression: str) -> str:
    """Calculate, taking a minute."""
    await asyncio.sleep(60)
    return expression


@tool("calculator")
async def stubborn(expression: str) -> str:
    """Calculate, and do not be stopped."""
    try:
        await asyncio.sleep(60)
    except BaseException:  # noqa: BLE001 - a badly written tool
        await asyncio.sleep(STUBBORN_S)
    return expression


@tool("calculator")
def threaded(expression: str) -> str:
    """Calculate in a thread, a while."""
    enough.wait(THREADED_S)
    with telemetry.span("late work"):
        return expression


@tool("calculator")
def asking(expression: str) -> str:
    """Ask a person."""
    return f"{expression}: {interrupt('Really?')}"


def with_tool(
    key: str, one: BaseTool, models: Models, checkpointer: BaseCheckpointSaver | None = None
) -> CompiledStateGraph:
    """An agent with this tool as its calculator."""
    return react(key, [one], models, checkpointer)


def broken_node(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent whose second node fails."""
    graph = StateGraph(MessagesState)
    graph.add_node("first", _begin)
    graph.add_node("second", _fail)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    return graph.compile(checkpointer, name="broken_node")


def _begin(state: MessagesState) -> dict[str, list[AIMessage]]:
    return {"messages": [AIMessage("One moment.")]}


def _fail(state: MessagesState) -> None:
    raise ValueError("the node is broken")


def asks_in_node(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent that asks in a plain node, and fails when it is told to."""
    graph = StateGraph(MessagesState)
    graph.add_node("ask", _ask)
    graph.add_edge(START, "ask")
    return graph.compile(checkpointer, name="asks_in_node")


async def _ask(state: MessagesState) -> dict[str, list[AIMessage]]:
    answer = interrupt("Shall I?")
    if answer == "slowly":
        await asyncio.sleep(60)
    if answer == "fail":
        raise ValueError("as you wish")
    return {"messages": [AIMessage(f"You said {answer}.")]}


def unloadable(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent that cannot be built."""
    raise ImportError("a package is missing")


build_slow = partial(with_tool, "slow", slow)
build_stubborn = partial(with_tool, "stubborn", stubborn)
build_threaded = partial(with_tool, "threaded", threaded)
build_asking = partial(with_tool, "asking", asking)

TABLE: Mapping[str, Agent] = {
    **AGENTS,
    "slow": Agent("Has a slow tool.", "tests.flawed_agents:build_slow"),
    "stubborn": Agent("Has a tool that cannot be stopped.", "tests.flawed_agents:build_stubborn"),
    "threaded": Agent("Has a tool in a thread.", "tests.flawed_agents:build_threaded"),
    "asking": Agent("Has a tool that asks.", "tests.flawed_agents:build_asking"),
    "broken_node": Agent("Has a broken node.", "tests.flawed_agents:broken_node"),
    "asks_in_node": Agent("Asks in a node.", "tests.flawed_agents:asks_in_node"),
    "unloadable": Agent("Cannot be built.", "tests.flawed_agents:unloadable"),
}


@contextmanager
def endless() -> Iterator[None]:
    """Tools that nobody can stop go on for the length of the block, and for much longer than any test waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.STUBBORN_S", 60)
        patch.setattr(f"{__name__}.THREADED_S", 60)
        patch.setattr(f"{__name__}.enough", seen := Event())
        try:
            yield
        finally:
            seen.set()


def main() -> None:
    """Serve these agents as the service is served."""
    settings = load_settings()
    telemetry.configure("agent-api")
    uvicorn.run(create_app(settings, TABLE), host=settings.host, port=settings.port, log_level="warning")


if __name__ == "__main__":
    sys.exit(main())
