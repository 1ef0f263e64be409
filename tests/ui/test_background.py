"""A background run as the page follows it: handed over in a trace, found again, not stopped by the page's end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import AgentClient
from app.schema import TaskEvent
from telemetry.testing import Recorded
from tests.processes import until
from tests.service import service
from ui.background import BackgroundTurn, unfinished
from ui.chat import Chat
from ui.turn_registry import TurnRegistry, turn_registry


@pytest.fixture
def client(spans: Recorded, tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path, DEMO_PACE_S=0.01) as url:
        yield AgentClient(url, "bg-task", user_id="ada")


def test_a_run_is_handed_over_and_followed_to_its_end(client: AgentClient, spans: Recorded) -> None:
    """The page's span is the root of the run's trace, and the page sees progress and answer."""
    turn = BackgroundTurn(client, "t-1", "work for 1 seconds")
    turn.start()
    until(lambda: turn.done, 60)

    seen = turn.exchange()
    [task] = [part for part in seen.parts if isinstance(part, TaskEvent)]
    assert (task.state, task.data["done"], task.data["steps"]) == ("finished", 4, 4)
    assert "Worked for 1 seconds" in seen.answer
    assert spans.tree().startswith("chat turn\n")
    assert "turn AGENT" in spans.tree()


def test_what_is_handed_over_says_so(client: AgentClient, spans: Recorded) -> None:
    """The page's span ends before the run, with a line; the run's own turn in the same trace has the answer."""
    turn = BackgroundTurn(client, "t-1", "work for 1 seconds")
    turn.start()
    until(lambda: turn.done, 60)

    root, run = (next(span for span in spans.settled() if span.name == name) for name in ("chat turn", "turn"))
    of_root, of_run = dict(root.attributes or {}), dict(run.attributes or {})
    assert str(of_root["output.value"]).startswith("Queued as run ")
    assert (of_root["turn.status"], of_run["turn.status"]) == ("queued", "completed")
    assert root.context
    assert run.context
    assert root.context.trace_id == run.context.trace_id
    assert "Worked for 1 seconds" in str(of_run["output.value"])
    assert (root.end_time or 0) < (run.end_time or 0)


def test_a_run_is_found_again_by_another_process(client: AgentClient) -> None:
    """A page that did not begin the run sees what it has told so far; the end of a page does not end it."""
    first = BackgroundTurn(client, "t-1", "work for 600 seconds")
    turns = TurnRegistry()
    turns.start(first)
    run = until(lambda: unfinished(client.get_runs().runs, "t-1"), 60)
    assert run
    again = BackgroundTurn(client, "t-1", run.message, run=run)
    again.start()
    until(lambda: any(isinstance(part, TaskEvent) for part in again.exchange().parts), 60)

    turns.stop()
    assert unfinished(client.get_runs().runs, "t-1")
    again.stop()
    until(lambda: first.done and again.done, 60)
    assert first.exchange().status == again.exchange().status == "cancelled"
    assert unfinished(client.get_runs().runs, "t-1") is None


def test_a_run_that_was_seen_to_its_end_is_not_followed_again(client: AgentClient) -> None:
    """A list of runs that is older than the run's end keeps nobody from the next message."""
    turn = BackgroundTurn(client, "t-1", "work for 0 seconds")
    turn_registry().start(turn)
    until(lambda: turn.done, 60)
    [run] = client.get_runs().runs

    assert Chat(client, "t-1", "demo").attach(run.model_copy(update={"status": "running"})) is turn
