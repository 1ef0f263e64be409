"""Spans and scores in one SQLite file that never grows past its cap."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from telemetry.otlp import Span
from telemetry.viewer.observation import Observation
from telemetry.viewer.score import Score

SCHEMA = """
CREATE TABLE IF NOT EXISTS traces (trace_id TEXT PRIMARY KEY, start INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS traces_by_start ON traces (start);
CREATE TABLE IF NOT EXISTS spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT,
    start INTEGER NOT NULL, end INTEGER NOT NULL, name TEXT NOT NULL,
    trace_name TEXT, session_id TEXT, user_id TEXT,
    tokens INTEGER NOT NULL, failed INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX IF NOT EXISTS spans_by_session ON spans (session_id);
CREATE TABLE IF NOT EXISTS scores (
    id TEXT PRIMARY KEY, trace_id TEXT, session_id TEXT, time INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS scores_by_trace ON scores (trace_id);
CREATE INDEX IF NOT EXISTS scores_by_time ON scores (time);
"""

ADD_SPAN = "INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_TRACE = "INSERT INTO traces VALUES (?, ?) ON CONFLICT DO UPDATE SET start = min(start, excluded.start)"
ADD_SCORE = "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)"
SCORES_OF = "SELECT body FROM scores WHERE trace_id IN (SELECT value FROM json_each(?)) ORDER BY time"

LATEST = """
SELECT
    (SELECT trace_name FROM spans AS s WHERE s.trace_id = traces.trace_id AND trace_name > ''
        ORDER BY start DESC LIMIT 1) AS trace_name,
    (SELECT name FROM spans AS s WHERE s.trace_id = traces.trace_id AND parent_id IS NULL
        LIMIT 1) AS root_name,
    (SELECT session_id FROM spans AS s WHERE s.trace_id = traces.trace_id AND session_id > ''
        ORDER BY start DESC LIMIT 1) AS session_id,
    (SELECT user_id FROM spans AS s WHERE s.trace_id = traces.trace_id AND user_id > ''
        ORDER BY start DESC LIMIT 1) AS user_id,
    trace_id, traces.start AS start, max(spans.end) AS end, count(*) AS spans, sum(tokens) AS tokens,
    sum(failed) AS errors
FROM (
    SELECT * FROM traces WHERE start < ? AND EXISTS (SELECT 1 FROM spans AS s WHERE s.trace_id = traces.trace_id)
    ORDER BY start DESC LIMIT ?
) AS traces JOIN spans USING (trace_id)
GROUP BY traces.start, trace_id ORDER BY traces.start DESC, trace_id
"""

BEFORE_ALL = 2**63 - 1

_SPAN = TypeAdapter(Span)
_SCORE = TypeAdapter(Score)


@dataclass(frozen=True)
class Summary:
    """One line of the list of traces."""

    trace_id: str
    start: int
    end: int
    spans: int
    tokens: int
    errors: int
    trace_name: str | None
    root_name: str | None
    session_id: str | None
    user_id: str | None

    @property
    def name(self) -> str:
        """Any span's trace name, else the root's name, else the trace id."""
        return self.trace_name or self.root_name or self.trace_id

    @property
    def latency(self) -> float:
        """Seconds from the first start to the last end."""
        return max(self.end - self.start, 0) / 1e9


class Store:
    """Spans and scores on disk; safe to use from any thread, blocking: keep it off the event loop."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._writer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._writer.executescript(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + SCHEMA
        )

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._writer.close()

    def add_spans(self, spans: Iterable[Span]) -> None:
        """Keep the spans; one that came before is replaced."""
        rows = [_span_row(span) for span in spans]
        with self._writing() as db:
            db.executemany(ADD_SPAN, rows)
            db.executemany(ADD_TRACE, [(row[0], row[3]) for row in rows])

    def add_scores(self, scores: Iterable[Score]) -> None:
        """Keep the scores; one with the same id is replaced."""
        with self._writing() as db:
            for score in scores:
                row = (score.id, score.trace_id, score.session_id, score.time, to_json(score))
                db.execute(ADD_SCORE, row)

    def delete_score(self, score_id: str) -> bool:
        """Return whether there was such a score to forget."""
        with self._writing() as db:
            return db.execute("DELETE FROM scores WHERE id = ?", (score_id,)).rowcount > 0

    def latest(self, count: int, before: int = BEFORE_ALL) -> list[Summary]:
        """Return the newest traces that began before a time, the newest first."""
        with self._reading() as db:
            cursor = db.execute(LATEST, (before, count))
            names = [column[0] for column in cursor.description]
            return [Summary(**dict(zip(names, row, strict=True))) for row in cursor]

    def observations(self, **where: str) -> list[Observation]:
        """Return the observations whose columns (`trace_id`, `session_id`, …) have these values, by start."""
        spans = self._bodies("spans", "start", where)
        return [Observation(_SPAN.validate_json(body)) for body in spans]

    def scores(self, **where: str) -> list[Score]:
        """Return the scores whose columns have these values, by time."""
        return [_SCORE.validate_json(body) for body in self._bodies("scores", "time", where)]

    def scores_of(self, trace_ids: Sequence[str]) -> dict[str, list[Score]]:
        """Return the scores of several traces, by trace id."""
        found: dict[str, list[Score]] = {trace_id: [] for trace_id in trace_ids}
        with self._reading() as db:
            for (body,) in db.execute(SCORES_OF, (to_json(trace_ids).decode(),)):
                score = _SCORE.validate_json(body)
                found[score.trace_id or ""].append(score)
        return found

    def size(self) -> int:
        """Return how many bytes of the file are in use."""
        with self._lock:
            return self._used()

    def _bodies(self, table: str, order: str, where: dict[str, str]) -> list[bytes]:
        clauses = " AND ".join(f"{column} = ?" for column in where)
        query = f"SELECT body FROM {table} WHERE {clauses} ORDER BY {order}"  # noqa: S608 - the names are our own
        with self._reading() as db:
            return [body for (body,) in db.execute(query, tuple(where.values()))]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            with self._transaction():
                yield self._writer
            if self._used() > self._max_bytes:
                self._make_room()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def _used(self) -> int:
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def _make_room(self) -> None:
        """Forget the oldest traces until a tenth of the cap is free, so that not every write has to."""
        while self._used() > self._max_bytes * 0.9 and self._forget_oldest():
            pass
        self._writer.execute("PRAGMA incremental_vacuum").fetchall()
        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _forget_oldest(self) -> bool:
        oldest = self._writer.execute("SELECT trace_id, start FROM traces ORDER BY start LIMIT 1").fetchone()
        trace_id, start = oldest or (None, BEFORE_ALL)
        with self._transaction():
            self._writer.execute("DELETE FROM spans WHERE trace_id = ?", (trace_id,))
            self._writer.execute("DELETE FROM traces WHERE trace_id = ?", (trace_id,))
            self._writer.execute("DELETE FROM scores WHERE trace_id = ? OR time <= ?", (trace_id, start))
        return oldest is not None

    def _pragma(self, name: str) -> Any:
        return self._writer.execute(f"PRAGMA {name}").fetchone()[0]


def _span_row(span: Span) -> tuple[Any, ...]:
    seen = Observation(span)
    return (
        *(span.trace_id, span.span_id, span.parent_id, span.start, span.end, span.name),
        *(seen.trace_name, seen.session_id, seen.user_id, seen.tokens, seen.level == "ERROR"),
        to_json(span, bytes_mode="base64", inf_nan_mode="strings"),
    )
