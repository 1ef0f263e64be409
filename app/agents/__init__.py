"""The agents of the service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.models import Models


@dataclass(frozen=True)
class Agent:
    """What an agent is for, and where it is built: `module:function`."""

    description: str
    build: str


AGENTS: Mapping[str, Agent] = {
    "chatbot": Agent("Talks, calculates and tells the time.", "app.agents.chatbot:build"),
    "supervisor": Agent("Hands sums and the time to two workers.", "app.agents.supervisor:build"),
    "interrupt": Agent("Books a table, once you agree.", "app.agents.interrupt:build"),
    "research": Agent("Looks things up in a small library on tracing.", "app.agents.research:build"),
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
) -> CompiledStateGraph:
    """The agent's graph, ready to run."""
    return resolve_name(table[key].build)(models, checkpointer)


def load_all(
    models: Models, checkpointer: BaseCheckpointSaver | None = None, table: Mapping[str, Agent] = AGENTS
) -> Agents:
    """Every agent; one that cannot be built is reported among the errors and stops nobody."""
    agents = Agents()
    for key in table:
        try:
            agents.graphs[key] = load(key, models, checkpointer, table)
        except Exception as error:  # noqa: BLE001 — whatever is wrong with one agent, the others work
            agents.errors[key] = f"{type(error).__name__}: {error}"
    return agents
