"""An agent that talks, calculates, tells the time and reads the thread's files."""

from collections.abc import Sequence

from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.agents.react import react
from app.agents.tools import calculator, current_time
from app.models.models import Models


def build(
    models: Models, checkpointer: BaseCheckpointSaver | None = None, files: Sequence[BaseTool] = ()
) -> CompiledStateGraph:
    """Return the chatbot's graph, with the tools for files if there are any."""
    return react("chatbot", [calculator, current_time, *files], models, checkpointer)
