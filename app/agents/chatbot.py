"""An agent that talks, calculates and tells the time."""

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.agents.react import react
from app.agents.tools import calculator, current_time
from app.models import Models

PROMPT = "You are a helpful assistant. Use your tools for arithmetic and for the time; answer briefly."


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """The chatbot's graph."""
    return react("chatbot", PROMPT, [calculator, current_time], models, checkpointer)
