"""An agent that writes Python and runs it."""

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.agents.react import react
from app.models.models import Models
from app.python_repl import make_python_repl
from app.settings import load_settings


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """Return the coding agent's graph; its threads' files are in the service's data folder."""
    repl = make_python_repl(load_settings().data_dir)
    return react("coding", [repl], models, checkpointer)
