"""The agents of the service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ConfigDict, Field

from app.agents.files import ThreadFiles
from app.files import Files
from app.models.models import Models


class Options(BaseModel):
    """The options in `agent_config`; unknown ones are refused, since they would be stored in the checkpoints."""

    model_config = ConfigDict(extra="forbid")


class ResearchOptions(Options):
    """The options of the research agent."""

    max_passages: int = Field(default=2, ge=1, le=10)


@dataclass(frozen=True)
class Agent:
    """An agent's description, its builder (`module:function`), its options, and whether it reads files.

    `title` is its name for people; `starters` are messages that show what it can do.
    """

    description: str
    build: str
    options: type[Options] = Options
    reads_files: bool = False
    title: str | None = None
    starters: tuple[str, ...] = ()


AGENTS: Mapping[str, Agent] = {
    "chatbot": Agent(
        "Talks, calculates, tells the time, reads files.",
        "app.agents.chatbot:build",
        reads_files=True,
        title="Chatbot",
        starters=("What is 12 * 34?", "What time is it in Europe/Berlin?", "Tell me a long story", "My name is Ada."),
    ),
    "supervisor": Agent(
        "Delegates calculations and the time to two workers.",
        "app.agents.supervisor:build",
        title="Supervisor",
        starters=("What is 6 * 7?", "What time is it in Asia/Tokyo?", "What is 2 ^ 10, and what time is it?"),
    ),
    "interrupt": Agent(
        "Books a table, once you agree.",
        "app.agents.interrupt:build",
        title="Table booking",
        starters=("Book a table for 4 at 19:30", "Book a table for 2 at 12:00", "Book a table"),
    ),
    "research": Agent(
        "Looks things up in a small library on tracing.",
        "app.agents.research:build",
        ResearchOptions,
        title="Research",
        starters=("Look up sampling", "Look up context propagation", "Look up spans and look up sampling"),
    ),
    "bg-task": Agent(
        "Works for a while and reports its progress.",
        "app.agents.bg_task:build",
        title="Long task",
        starters=("Work for 5 seconds", "Work for 30 seconds", "Work for 2 seconds and work for 4 seconds"),
    ),
    "coding": Agent(
        "Writes Python and runs it in a sandbox.",
        "app.agents.coding:build",
        title="Python",
        starters=("Run `print(sum(range(101)))`", "Run `import sys; print(sys.version)`", "Run `print(1 / 0)`"),
    ),
}
DEFAULT_AGENT = "chatbot"


@dataclass(frozen=True)
class Agents:
    """The agents that could be built, and the errors of the others."""

    graphs: dict[str, CompiledStateGraph] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def load(
    key: str,
    models: Models,
    checkpointer: BaseCheckpointSaver | None = None,
    table: Mapping[str, Agent] = AGENTS,
    files: Files | None = None,
) -> CompiledStateGraph:
    """Return the agent's graph, ready to run."""
    accessible = [ThreadFiles(files, models)] if files and table[key].reads_files else []
    return resolve_name(table[key].build)(models, checkpointer, *accessible)


def load_all(
    models: Models,
    checkpointer: BaseCheckpointSaver | None = None,
    table: Mapping[str, Agent] = AGENTS,
    files: Files | None = None,
) -> Agents:
    """Build every agent; `errors` has those that could not be built, and the others work."""
    agents = Agents()
    for key in table:
        try:
            agents.graphs[key] = load(key, models, checkpointer, table, files)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one agent, the others work
            agents.errors[key] = f"{type(error).__name__}: {error}"
    return agents
