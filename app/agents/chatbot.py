"""An agent that talks, calculates, tells the time and reads the thread's files."""

from collections.abc import Sequence

from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.agents.react import react
from app.agents.tools import calculator, current_time
from app.models.models import Models

PROMPT = "You are a helpful assistant. Use your tools for arithmetic, for the time and for files; answer briefly."


def build(
    models: Models, checkpointer: BaseCheckpointSaver | None = None, files: Sequence[BaseTool] = ()
) -> CompiledStateGraph:
    """The chatbot's graph, with the tools that read files where there are any."""
    return react("chatbot", PROMPT, [calculator, current_time, *files], models, checkpointer)
