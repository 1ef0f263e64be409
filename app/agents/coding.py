"""An agent that writes Python and runs it."""

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.agents.react import react
from app.models.models import Models
from app.python_repl import make_python_repl
from app.settings import load_settings

PROMPT = (
    "You solve tasks by writing Python and running it with your tool. Print what you need to see, keep what you "
    "need later in files, and say briefly what came of it."
)


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """The coding agent's graph; its threads' files are in the service's folder."""
    repl = make_python_repl(load_settings().data_dir)
    return react("coding", PROMPT, [repl], models, checkpointer)
