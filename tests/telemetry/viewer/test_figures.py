"""The figures of the overview: right after every change, and read once."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.export.otlp import Span
from telemetry.viewer.figures import HOUR_S, merged, percentiles
from telemetry.viewer.score import Score
from telemetry.viewer.store import Store
from telemetry.viewer.summary import SILENCE_S
from tests.telemetry.viewer.test_store import span

HOUR = HOUR_S * 10**9


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "viewer.db", 2**30)) as store:
        yield store


def turn(number: int, hour: int, seconds: float = 1.0, **fields: object) -> list[Span]:
    """A turn of a version, with a model and a tool."""
    start = hour * HOUR + number * 10**9
    common = {"user.id": "ada", "langfuse.version": f"1.{hour}"}
    asked = {**common, "openinference.span.kind": "AGENT", "input.value": "x"}
    model = {**common, "llm.model_name": "m", "llm.token_count.total": 10, "llm.cost.total": 0.5}
    tool = {**common, "openinference.span.kind": "TOOL"}
    end = start + int(seconds * 10**9)
    root = span(number, 1, start=start, end=end, attributes=asked, **fields)
    below = {"parent_id": root.span_id, "start": start, "end": start + 10**9}
    return [
        root,
        span(number, 2, name="m", attributes=model, **below),
        span(number, 3, name="t", attributes=tool, **below),
    ]


def seen(store: Store) -> tuple[int, int, int, float | None, dict[tuple[str, str], int]]:
    whole = merged(store.periods(HOUR_S, 0).values())
    return whole.turns, whole.failed, whole.tokens, whole.cost, {key: each.calls for key, each in whole.usage.items()}


def test_figures_follow_every_change(store: Store, tmp_path: Path) -> None:
    """What is added, replaced, moved to another hour, deleted or written by another process is summed up at once."""
    store.add_spans([*turn(1, 1), *turn(2, 2)])
    usage = {("model", "m"): 2, ("tool", "t"): 2, ("user", "ada"): 2, ("version", "1.1"): 1, ("version", "1.2"): 1}
    assert seen(store) == (2, 0, 20, 1.0, usage)
    store.add_spans(turn(3, 2, status="ERROR"))
    assert seen(store)[:4] == (3, 1, 30, 1.5)
    store.add_spans([each.but(trace_id=f"{1:032x}") for each in turn(1, 3)])
    assert sorted(number for number, hour in store.periods(HOUR_S, 0).items() if hour.turns) == [2, 3]
    assert store.delete_trace(f"{1:032x}")
    assert seen(store)[:4] == (2, 1, 20, 1.0)
    with closing(Store(tmp_path / "viewer.db", 2**30)) as other:
        other.add_spans(turn(4, 2))
    assert seen(store)[0] == 3


def test_an_hour_is_read_once(store: Store) -> None:
    """Hours without a change are not read from the file again, and a longer period reads what is missing."""
    store.add_spans([each for number in range(1, 6) for each in turn(number, number)])
    recent = store.periods(HOUR_S, 4 * HOUR_S)
    assert sorted(recent) == [4, 5]
    first = store.periods(HOUR_S, 0)
    assert sorted(first) == [1, 2, 3, 4, 5]
    assert first[5] is recent[5]
    store.add_spans(turn(9, 2))
    second = store.periods(HOUR_S, 0)
    assert [hour for hour in first if second[hour] is not first[hour]] == [2]


def test_a_running_turn_fails_when_it_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn whose caller never came counts as failed after the silence, without any further write."""
    hour = time.time_ns() // HOUR
    remote = {"parent_id": "f" * 16, "flags": 0x300, "status": "ERROR"}
    store.add_spans([span(1, start=hour * HOUR, attributes={"openinference.span.kind": "AGENT"}, **remote)])
    assert seen(store)[:2] == (1, 0)
    later = time.time() + SILENCE_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert seen(store)[:2] == (1, 1)


def test_percentiles_are_between_the_values() -> None:
    """The percentiles of one value are that value; of more they are interpolated."""
    assert percentiles([]) is None
    assert percentiles([2 * 10**9]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert percentiles([number * 10**9 for number in range(101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_old_traces_are_deleted(tmp_path: Path) -> None:
    """What began before the greatest age goes with its scores, at the start and later; what is newer stays."""
    path, now = tmp_path / "viewer.db", time.time_ns()
    with closing(Store(path, 2**30)) as store:
        store.add_spans([span(1, start=now - 3 * 86_400 * 10**9), span(2, start=now)])
        store.add_scores([Score(trace_id=span(1).trace_id, name="n", value=1)])
    with closing(Store(path, 2**30, 2 * 86_400)) as store:
        assert [trace.trace_id for trace in store.latest(9)] == [span(2).trace_id]
        assert store.scores(span(1).trace_id) == []
