"""What is kept, and what makes room."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_core import to_json

from telemetry.export.otlp import Event, Link, Span
from telemetry.viewer.score import Score
from telemetry.viewer.store import Store
from telemetry.viewer.summary import TraceFilters

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
    [found] = store.observations(whole.trace_id)
    assert found.span == whole
    [odd] = store.observations(span(2).trace_id)
    assert odd.attributes == {"raw": "_w=="}


def test_nobody_else_on_the_machine_reads_it(tmp_path: Path) -> None:
    """The file and those beside it are their owner's, a new one and one of earlier releases."""
    earlier = tmp_path / "earlier.db"
    earlier.touch(0o644)
    before = os.umask(0)
    try:
        for path in (tmp_path / "deep" / "viewer.db", earlier):
            with closing(Store(path, CAP)) as store:
                store.add_spans([span(1)])
                modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.glob(f"{path.name}*")}
                assert modes == dict.fromkeys(modes, 0o600)
                assert len(modes) == 3
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700


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
    assert store.scores(span(1).trace_id) == []
    assert [trace.trace_id for trace in store.latest(9)] == [span(2).trace_id]


def test_a_trace_sent_later_in_parts_keeps_its_first_start(store: Store) -> None:
    """A trace's place in the list is its earliest span's start, whichever span came first."""
    store.add_spans([span(5, 1, start=50, end=60, parent_id="f" * 16), span(6, 1, start=20)])
    store.add_spans([span(5, 2, start=10, end=70, name="root")])
    assert [
        (trace.start, trace.name, trace.latency)
        for trace in store.latest(1, TraceFilters(all="1", before=f"15-{'0' * 32}"))
    ] == [(10, "root", 60e-9)]
    assert [trace.start for trace in store.latest(9)] == [20, 10]


def test_it_opens_what_it_left(tmp_path: Path) -> None:
    """A second start finds the spans of the first."""
    path = tmp_path / "viewer.db"
    with closing(Store(path, CAP)) as store:
        store.add_spans([span(1)])
    with closing(Store(path, CAP)) as store:
        assert len(store.latest(9)) == 1


OLD = """
CREATE TABLE traces (trace_id TEXT PRIMARY KEY, start INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX traces_by_start ON traces (start);
CREATE TABLE spans (trace_id TEXT NOT NULL, span_id TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX spans_by_session ON spans (trace_id);
CREATE TABLE scores (id TEXT PRIMARY KEY, time INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX scores_by_trace ON scores (id);
"""


def test_a_file_of_another_version_is_read_anew(tmp_path: Path) -> None:
    """What an older viewer kept is listed, found and scored; a file that cannot be read is left as it was."""
    path = tmp_path / "viewer.db"
    old = span(1, name="early", attributes={"input.value": "How is Paris?", "session.id": "s"})
    score = Score(trace_id=old.trace_id, name="stars", value=1)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD)
        db.execute("INSERT INTO traces VALUES (?, 1)", (old.trace_id,))
        db.execute("INSERT INTO spans VALUES (?, ?, ?)", (old.trace_id, old.span_id, to_json(old)))
        db.execute("INSERT INTO scores VALUES (?, 1, ?)", (score.id, to_json(score)))
        db.commit()
    for _ in range(2):
        with closing(Store(path, CAP)) as store:
            [found] = store.latest(9, TraceFilters(text="paris", session="s", score="stars"))
            assert (found.name, store.scores(old.trace_id)) == ("early", [score])

    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1")
        db.execute("UPDATE spans SET body = '{}'")
        db.commit()
    with pytest.raises(ValidationError):
        Store(path, CAP)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM traces").fetchone() == (1,)


# The tables of version 3, as the first viewers with a list left them.
VERSION_3 = """
CREATE TABLE spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, remote INTEGER NOT NULL,
    start INTEGER NOT NULL, end INTEGER NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL,
    trace_name TEXT, session_id TEXT, user_id TEXT,
    tokens INTEGER NOT NULL, failed INTEGER NOT NULL, first_token INTEGER, sign TEXT, said TEXT,
    body BLOB NOT NULL,
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX spans_by_session ON spans (session_id);
CREATE TABLE traces (
    id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL UNIQUE, start INTEGER NOT NULL, end INTEGER NOT NULL,
    spans INTEGER NOT NULL, tokens INTEGER NOT NULL, errors INTEGER NOT NULL, first_token INTEGER,
    open INTEGER NOT NULL, seen REAL NOT NULL, name TEXT NOT NULL, session_id TEXT, user_id TEXT
);
CREATE INDEX failed_traces ON traces (start, trace_id) WHERE errors > 0;
CREATE VIRTUAL TABLE words USING fts5 (said);
CREATE TABLE scores (
    id TEXT PRIMARY KEY, trace_id TEXT, session_id TEXT, time INTEGER NOT NULL, name TEXT NOT NULL, number REAL,
    body BLOB NOT NULL
);
CREATE INDEX scores_by_name ON scores (name, number, trace_id);
INSERT INTO words (rowid, said) VALUES (1, 'How is Paris?');
PRAGMA user_version = 3;
"""


def test_a_file_of_version_3_is_read_anew(tmp_path: Path) -> None:
    """What the version before kept has its status, its words in any script, its labels and its scores."""
    path = tmp_path / "viewer.db"
    said = {"input.value": "How is 巴黎?", "turn.status": "cancelled", "user.id": "ada", "model": "m"}
    old = span(1, attributes=said, start=10)
    score = Score(id="s", trace_id=old.trace_id, name="stars", value=1)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_3)
        ids = (old.trace_id, old.span_id)
        db.execute(
            "INSERT INTO spans VALUES (?, ?, NULL, 0, 1, 2, 'n', 'SPAN', NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, ?)",
            (*ids, to_json(old)),
        )
        db.execute("INSERT INTO traces VALUES (1, ?, 1, 2, 1, 0, 0, NULL, 0, 0, 'n', NULL, NULL)", ids[:1])
        db.execute("INSERT INTO scores VALUES ('s', ?, NULL, 1, 'stars', 1, ?)", (old.trace_id, to_json(score)))
        db.commit()
    for _ in range(2):
        with closing(Store(path, CAP)) as store:
            [found] = store.latest(9, TraceFilters(text="巴黎", model="m", status="cancelled", user="ada"))
            assert (found.start, found.question, found.state) == (10, "How is 巴黎?", "cancelled")
            assert store.scores(old.trace_id) == [score]


def test_what_was_forgotten_is_not_found(store: Store) -> None:
    """The words of a trace that made room are gone with it."""
    store.add_spans([span(1, attributes={"input.value": "gone", "text": "x" * 1_000_000})])
    assert store.latest(9, TraceFilters(text="gone", all="1"))
    store.add_spans([span(2, attributes={"text": "x" * 1_500_000})])
    assert store.latest(9, TraceFilters(text="gone", all="1")) == []
    assert store.facets(TraceFilters(all="1"))["environment"] == {"default": 1}
