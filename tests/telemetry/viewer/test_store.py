"""What is kept, and what makes room."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.otlp import Event, Link, Span
from telemetry.viewer.score import Score
from telemetry.viewer.store import Store

CAP = 2 * 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "deep" / "viewer.db", CAP)) as store:
        yield store


def span(trace: int, number: int = 1, **fields: object) -> Span:
    values = {"name": "n", "kind": "INTERNAL", "start": trace, "end": trace + 1, "attributes": {}, "parent_id": None}
    return Span(f"{trace:032x}", f"{number:016x}", **values | fields)  # pyright: ignore[reportArgumentType]


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("viewer.db*"))


def test_a_span_comes_back_as_it_was(store: Store) -> None:
    """Every field survives the file; bytes come back as base64."""
    whole = span(
        1,
        parent_id="a" * 16,
        attributes={"list": [1, "a", None], "map": {"k": 1.5}},
        events=[Event("e", 2, {"k": "v"})],
        links=[Link("b" * 32, "c" * 16, {})],
        resource={"service.name": "s"},
        status="ERROR",
        message="m",
    )
    store.add_spans([whole, span(2, attributes={"raw": b"\xff"})])
    [found] = store.observations(trace_id=whole.trace_id)
    assert found.span == whole
    [odd] = store.observations(trace_id=span(2).trace_id)
    assert odd.attributes == {"raw": "_w=="}


def test_the_oldest_traces_make_room(store: Store, tmp_path: Path) -> None:
    """However much comes, the file stays near its cap and the newest traces are the ones kept, whole."""
    for trace in range(1, 101):
        store.add_spans([span(trace, number, attributes={"text": "x" * 50_000}) for number in (1, 2)])
        assert store.size() <= CAP
    kept = [int(trace.trace_id, 16) for trace in store.latest(100)]
    assert kept == list(range(100, 100 - len(kept), -1))
    assert 10 <= len(kept) < 50
    assert {trace.spans for trace in store.latest(100)} == {2}
    assert on_disk(tmp_path / "deep") < 3 * CAP


def test_scores_make_room_too(store: Store) -> None:
    """Scores alone cannot fill the disk either."""
    for number in range(100):
        store.add_scores(
            [Score(id=str(number), trace_id="t", name="n", value="v", data_type="TEXT", comment="x" * 50_000)]
        )
        assert store.size() <= CAP


def test_scores_go_with_their_trace(store: Store) -> None:
    """Where a trace is forgotten, its scores are."""
    old = Score(trace_id=span(1).trace_id, name="n", value=1)
    store.add_spans([span(1, attributes={"text": "x" * 1_000_000})])
    store.add_scores([old])
    store.add_spans([span(2, attributes={"text": "x" * 1_500_000})])
    assert store.scores(trace_id=span(1).trace_id) == []
    assert [trace.trace_id for trace in store.latest(9)] == [span(2).trace_id]


def test_a_trace_sent_later_in_parts_keeps_its_first_start(store: Store) -> None:
    """A trace's place in the list is its earliest span's start, whichever span came first."""
    store.add_spans([span(5, 1, start=50, end=60, parent_id="f" * 16), span(6, 1, start=20)])
    store.add_spans([span(5, 2, start=10, end=70, name="root")])
    assert [(trace.start, trace.name, trace.latency) for trace in store.latest(1, before=15)] == [(10, "root", 60e-9)]
    assert [trace.start for trace in store.latest(9)] == [20, 10]


def test_it_opens_what_it_left(tmp_path: Path) -> None:
    """A second start finds the spans of the first."""
    path = tmp_path / "viewer.db"
    with closing(Store(path, CAP)) as store:
        store.add_spans([span(1)])
    with closing(Store(path, CAP)) as store:
        assert len(store.latest(9)) == 1
