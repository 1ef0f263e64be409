"""The table of agents: each can be built, and a broken one stops nobody."""

import pytest

from app.agents import AGENTS, DEFAULT_AGENT, Agent, load_all
from app.models.models import load_models


def test_every_agent_can_be_built() -> None:
    """Each entry gives a graph that goes by the entry's key."""
    agents = load_all(load_models())
    assert agents.errors == {}
    assert {key: graph.name for key, graph in agents.graphs.items()} == {key: key for key in AGENTS}
    assert DEFAULT_AGENT in agents.graphs


@pytest.mark.parametrize("build", ["app.nowhere:build", "app.agents.chatbot:nothing", "json:dumps", "?"])
def test_a_broken_agent_is_reported_and_stops_nobody(build: str) -> None:
    """An agent that cannot be imported or built is named with its error, and the others work."""
    agents = load_all(load_models(), table={**AGENTS, "broken": Agent("Does not work.", build)})
    assert set(agents.graphs) == set(AGENTS)
    assert list(agents.errors) == ["broken"]
    assert "Error: " in agents.errors["broken"]
