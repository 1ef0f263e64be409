"""An agent that talks, calculates, tells the time and reads the thread's files."""

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.agents.files import ThreadFiles
from app.agents.react import react
from app.agents.tools import calculator, current_time
from app.models.models import Models


def build(
    models: Models, checkpointer: BaseCheckpointSaver | None = None, files: ThreadFiles | None = None
) -> CompiledStateGraph:
    """Return the chatbot's graph, with access to the thread's files if there are any."""
    tools = [calculator, current_time, *(files.tools if files else ())]
    return react("chatbot", tools, models, checkpointer, prepare=files.attach if files else None)
