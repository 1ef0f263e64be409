"""A task shows its life while it lives, says no more than it should, and always ends."""

import asyncio
import gc
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from telemetry import Task
from telemetry.testing import Recorded

OFTEN = 0.0
SELDOM = 3600.0


def named(spans: Recorded, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_changes_arrive_while_it_runs(spans: Recorded) -> None:
    """The beginning and each change are finished spans before the task has ended."""
    with Task("copy", interval_s=OFTEN) as task:
        assert [span.name for span in spans.get_finished_spans()] == ["started"]
        task.write_data(done=1)
        task.write_data(done=2)
        assert [span.name for span in spans.get_finished_spans()] == ["started", "progress", "progress"]

    assert spans.tree() == "task copy\n  started\n  progress\n  progress\n  finished"
    assert [attributes(span)["output.value"] for span in named(spans, "progress")] == ['{"done":1}', '{"done":2}']


def test_only_changes_are_told(spans: Recorded) -> None:
    """What says nothing new is counted, and not told again."""
    with Task("copy", interval_s=OFTEN) as task:
        for _ in range(5):
            task.write_data(done=1)

    assert len(named(spans, "progress")) == 1
    (whole,) = named(spans, "task copy")
    assert (attributes(whole)["task.writes"], attributes(whole)["task.events"]) == (5, 3)


def test_no_more_than_one_in_an_interval(spans: Recorded) -> None:
    """A task that changes a thousand times a moment tells its beginning and its end, with all that it knows."""
    with Task("copy", interval_s=SELDOM) as task:
        for number in range(1000):
            task.write_data(done=number)

    assert spans.tree() == "task copy\n  started\n  finished"
    (whole,) = named(spans, "task copy")
    assert attributes(whole)["output.value"] == '{"done":999}'
    assert attributes(whole)["task.writes"] == 1000


def test_whoever_waits_is_told_the_same() -> None:
    """The listener's events are those of the trace, and there are listeners where nothing is traced."""
    told: list[dict[str, Any]] = []
    with Task("copy", tell=told.append, files=2, interval_s=OFTEN) as task:
        task.write_data(done=1)

    assert [(event["type"], event["state"], event["data"]) for event in told] == [
        ("task", "started", {"files": 2}),
        ("task", "progress", {"files": 2, "done": 1}),
        ("task", "finished", {"files": 2, "done": 1}),
    ]
    assert {event["task_id"] for event in told} == {task.task_id}
    assert told[-1]["result"] == "success"


def test_by_its_three_words(spans: Recorded) -> None:
    """start, write_data and finish do the same; what comes after the end changes nothing."""
    task = Task("copy", interval_s=OFTEN)
    task.write_data(too="early")
    task.start(files=2)
    task.start(files=3)
    task.write_data(done=1)
    task.finish("error", error="the disk is full")
    task.write_data(done=2)
    task.finish()

    assert spans.tree(["task.result"]) == ("task copy ERROR task.result=error\n  started\n  progress\n  finished")
    (whole,) = named(spans, "task copy")
    assert whole.status.description == "the disk is full"


@pytest.mark.parametrize(("error", "result", "tree"), [
    (ValueError("no"), "error", "task copy ERROR"),
    (asyncio.CancelledError(), "cancelled", "task copy"),
])  # fmt: skip
def test_it_ends_honestly(spans: Recorded, error: BaseException, result: str, tree: str) -> None:
    """An exception makes the task a failed one, a cancellation a cancelled one."""
    with pytest.raises(type(error)), Task("copy"):
        raise error

    assert spans.tree(["task.result"]).splitlines()[0] == f"{tree} task.result={result}"


async def test_it_outlives_its_turn(spans: Recorded) -> None:
    """A task that goes on when its turn has ended stays in the trace, with the turn's stamps."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def copy() -> None:
        with Task("copy", interval_s=OFTEN) as task:
            started.set()
            await go_on.wait()
            task.write_data(done=1)

    tasks = []

    async def work(_: telemetry.Turn) -> None:
        tasks.append(asyncio.create_task(copy()))
        await started.wait()

    turn: telemetry.Turn[Any] = telemetry.Turn("bg-task", run_id=uuid4(), session_id="t-7", user_id="ada")
    turn.start(work)
    await turn.ended()
    assert [span.name for span in spans.get_finished_spans()] == ["started", "turn"]
    go_on.set()
    await tasks[0]

    assert spans.tree() == "turn AGENT\n  task copy\n    started\n    progress\n    finished"
    assert {attributes(span)["session.id"] for span in spans.settled()} == {"t-7"}


def test_a_forgotten_task_ends(spans: Recorded) -> None:
    """A task that nobody finishes and nobody holds is ended as abandoned."""
    Task("copy").start()
    gc.collect()

    (whole,) = named(spans, "task copy")
    assert attributes(whole)["abandoned"] is True


def test_what_is_open_at_the_end_is_ended(spans: Recorded) -> None:
    """A service that stops ends its tasks as cancelled."""
    task = Task("copy")
    task.start()
    telemetry.end_tasks()

    assert task.result == "cancelled"
    assert spans.open == []
