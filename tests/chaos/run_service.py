"""The service with one more agent, whose tool writes down each time it is really called; for tests that kill it."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from langchain_core.tools import InjectedToolCallId, ToolException, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

import telemetry
from app.__main__ import Service
from app.agents import Agent
from app.agents.react import react
from app.models.models import Models
from app.runs import runs
from app.runs.tool_call_log import not_repeatable
from app.service import create_app
from app.settings import load_settings

PACE_S = float(os.environ.get("STEP_PACE_S") or 0.1)
CALLED = "called"
HELD = "held"


async def add(expression: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> str:
    """Add two numbers, slowly."""
    if expression == "666+666":
        os._exit(1)
    if expression == "13+13":
        raise ToolException("unlucky")
    _write_down(f"{tool_call_id} {expression}")
    left, right = expression.split("+")
    await asyncio.sleep(PACE_S)
    while _is_held(expression):  # noqa: ASYNC110 - another process lets it go
        await asyncio.sleep(0.02)
    return str(int(left) + int(right))


calculator = tool("calculator")(add)


def _write_down(line: str) -> None:
    with Path(os.environ["DATA_DIR"], CALLED).open("a") as file:
        file.write(line + "\n")


def _is_held(expression: str) -> bool:
    with suppress(FileNotFoundError):
        return Path(os.environ["DATA_DIR"], HELD).read_text() == expression
    return False


@tool("calculator")
async def careful(expression: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> str:
    """Add two numbers, which must not happen twice."""
    return await add(expression, tool_call_id)


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """The agent that counts."""
    return react("steps", [calculator], models, checkpointer)


def build_careful(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """The agent that counts, and never twice."""
    return react("careful", [not_repeatable(careful)], models, checkpointer)


AGENTS = {
    "steps": Agent("Counts.", f"{__name__}:build"),
    "careful": Agent("Counts, and never twice.", f"{__name__}:build_careful"),
    "chatbot": Agent("Talks.", "app.agents.chatbot:build"),
    "bg-task": Agent("Works for a while.", "app.agents.bg_task:build"),
}

if __name__ == "__main__":
    # What is built by name must not be this module a second time.
    AGENTS = {
        key: Agent(a.description, a.build.replace("__main__", "tests.chaos.run_service")) for key, a in AGENTS.items()
    }
    if wait_s := os.environ.get("RETRY_WAIT_S"):
        runs.FIRST_WAIT_S = float(wait_s)
    settings = load_settings()
    telemetry.configure("agent-api")
    Service(create_app(settings, AGENTS), settings.host, settings.port).run()
    sys.exit(0)
