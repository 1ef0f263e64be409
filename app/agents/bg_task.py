"""An agent that works for a while and reports its progress."""

import asyncio

from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_stream_writer
from langgraph.graph.state import CompiledStateGraph

from app.agents.react import react
from app.models.models import Models
from telemetry import Task

MAX_SECONDS = 3_600
STEP_S = 0.25


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """Return the graph of the agent."""
    return react("bg-task", [long_work], models, checkpointer)


@tool
async def long_work(seconds: float) -> str:
    """Work for so many seconds, telling how far it is."""
    if not 0 <= seconds <= MAX_SECONDS:
        raise ToolException(f"Ask for 0 to {MAX_SECONDS} seconds.")
    steps = max(1, round(seconds / STEP_S))
    with Task("long work", tell=get_stream_writer(), steps=steps) as task:
        for step in range(steps):
            task.write_data(done=step)
            await asyncio.sleep(seconds / steps)
        task.write_data(done=steps)
    return f"Worked for {seconds:g} seconds, in {steps} steps."
