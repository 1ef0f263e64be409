"""Turns that score themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import AgentClient, AgentError
from telemetry.settings import load_settings
from telemetry.testing import recording
from tests.langfuse_server import Langfuse, langfuse_server
from tests.processes import until
from tests.service import service


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Langfuse]:
    with langfuse_server(tmp_path) as langfuse:
        for name, value in langfuse.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TELEMETRY_SPOOL_DIR", str(tmp_path / "spool"))
        yield langfuse


@pytest.fixture
def client(server: Langfuse, tmp_path: Path) -> Iterator[AgentClient]:
    with recording(load_settings()), service(tmp_path, SCORE_TURNS=True) as url:
        yield AgentClient(url, "chatbot", timeout=30)


@pytest.mark.parametrize(
    ("message", "value"), [("What is 12*34?", True), ("Sing me something", False), ("/fail", False)]
)
def test_a_finished_turn_is_scored(client: AgentClient, server: Langfuse, message: str, value: bool) -> None:
    """A turn's trace gets the evaluator's score once the turn is over, whether it went well or not."""
    try:
        trace_id = client.invoke(message).trace_id or ""
    except AgentError as error:
        trace_id = error.trace_id or ""
    until(lambda: server.scores(trace_id), 60)

    [score] = server.scores(trace_id)
    assert (score["name"], score["value"], score["dataType"]) == ("answered", value, "BOOLEAN")


def test_a_person_has_a_score_of_their_own(client: AgentClient, server: Langfuse) -> None:
    """What a user says does not replace what the evaluator says."""
    answer = client.invoke("What is 12*34?")
    client.feedback(answer.run_id or "", "answered", 0)
    until(lambda: len(server.scores(answer.trace_id or "")) == 2, 60)


def test_a_turn_without_an_answer_yet_is_not_scored(server: Langfuse, tmp_path: Path) -> None:
    """A turn that waits for a person is not judged."""
    with recording(load_settings()), service(tmp_path, SCORE_TURNS=True) as url:
        AgentClient(url, "interrupt", timeout=30).invoke("Book a table for 4 at 20:00")
        trace_id = AgentClient(url, "chatbot", timeout=30).invoke("Hello").trace_id or ""
        until(lambda: server.scores(trace_id), 60)

    assert len(server.asked) == 1
