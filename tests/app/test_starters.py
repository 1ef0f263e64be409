"""What agents offer to begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.agents import AGENTS
from app.client import AgentClient
from app.schema import EndEvent, MessageEvent
from tests.service import service

STARTERS = [(key, message) for key, agent in AGENTS.items() for message in agent.starters]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("starters")
    with service(folder) as address:
        yield address


def test_every_agent_has_a_title_and_starters(url: str) -> None:
    """`/info` tells what people call an agent, and three or four messages that show what it can do."""
    agents = AgentClient(url).info().agents
    assert len({agent.title for agent in agents if agent.title}) == len(AGENTS)
    assert {len(agent.starters) for agent in agents} <= {3, 4}


@pytest.mark.parametrize(("agent", "message"), [each for each in STARTERS if "30 seconds" not in each[1]])
def test_the_demo_model_has_an_answer_to_every_starter(url: str, agent: str, message: str) -> None:
    """None of them ends with an error, or with the sentence for what there is no rule for."""
    events = list(AgentClient(url, agent).stream(message))
    texts = [event.content.content for event in events if isinstance(event, MessageEvent)]
    assert not [text for text in texts if "I have no rule" in text]
    [end] = [event for event in events if isinstance(event, EndEvent)]
    assert end.status in ("completed", "waiting")
