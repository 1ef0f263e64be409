"""The agents of the service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ConfigDict, Field

from app.agents.files import file_tools
from app.files import Files
from app.models.models import Models


class Options(BaseModel):
    """What callers may put into `agent_config`; all else is refused, since it would reach the checkpoints."""

    model_config = ConfigDict(extra="forbid")


class ResearchOptions(Options):
    """How many passages a search brings."""

    max_passages: int = Field(default=2, ge=1, le=10)


@dataclass(frozen=True)
class Agent:
    """What an agent is for, where it is built (`module:function`), its options, and whether it reads files."""

    description: str
    build: str
    options: type[Options] = Options
    reads_files: bool = False


AGENTS: Mapping[str, Agent] = {
    "chatbot": Agent("Talks, calculates, tells the time, reads files.", "app.agents.chatbot:build", reads_files=True),
    "supervisor": Agent("Hands sums and the time to two workers.", "app.agents.supervisor:build"),
    "interrupt": Agent("Books a table, once you agree.", "app.agents.interrupt:build"),
    "research": Agent("Looks things up in a small library on tracing.", "app.agents.research:build", ResearchOptions),
    "bg-task": Agent("Works for a while, and says how far it is.", "app.agents.bg_task:build"),
    "coding": Agent("Writes Python and runs it, shut in.", "app.agents.coding:build"),
}
DEFAULT_AGENT = "chatbot"


@dataclass(frozen=True)
class Agents:
    """The agents that could be built, and why the others could not."""

    graphs: dict[str, CompiledStateGraph] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def load(
    key: str,
    models: Models,
    checkpointer: BaseCheckpointSaver | None = None,
    table: Mapping[str, Agent] = AGENTS,
    files: Files | None = None,
) -> CompiledStateGraph:
    """The agent's graph, ready to run."""
    tools = [file_tools(files)] if files and table[key].reads_files else []
    return resolve_name(table[key].build)(models, checkpointer, *tools)


def load_all(
    models: Models,
    checkpointer: BaseCheckpointSaver | None = None,
    table: Mapping[str, Agent] = AGENTS,
    files: Files | None = None,
) -> Agents:
    """Every agent; one that cannot be built is reported among the errors and stops nobody."""
    agents = Agents()
    for key in table:
        try:
            agents.graphs[key] = load(key, models, checkpointer, table, files)
        except Exception as error:  # noqa: BLE001 — whatever is wrong with one agent, the others work
            agents.errors[key] = f"{type(error).__name__}: {error}"
    return agents
