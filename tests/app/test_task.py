"""Whoever reads the stream of a turn sees the agent's tasks."""

from pathlib import Path

from app.client import AgentClient
from app.schema import TaskEvent
from telemetry.testing import Recorded
from tests.service import service


def test_tasks_are_streamed(spans: Recorded, tmp_path: Path) -> None:
    """A task's beginning, progress and end are events of the turn, while it works, and spans of its trace."""
    with service(tmp_path) as url:
        events = list(AgentClient(url, "bg-task").stream("work for 1.5 seconds"))

    told = [event for event in events if isinstance(event, TaskEvent)]
    assert [event.state for event in told] == ["started", *["progress"] * (len(told) - 2), "finished"]
    assert (told[-1].result, told[-1].data) == ("success", {"steps": 6, "done": 6})
    assert 0 < told[1].data["done"] < 6
    assert "task long work\n" in spans.tree()
    assert [span.name for span in spans.settled() if span.name in ("started", "progress", "finished")] == [
        event.state for event in told
    ]
