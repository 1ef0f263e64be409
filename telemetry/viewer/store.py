"""Spans and scores in one SQLite file that never grows past its cap."""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from telemetry.otlp import LAST_TIME, Span
from telemetry.viewer import schema
from telemetry.viewer.observation import Observation
from telemetry.viewer.schema import SCORE, SPAN
from telemetry.viewer.score import Score
from telemetry.viewer.summary import SUMMARIES, Filters, Session, Summary, Tool

SCORES_OF = """
SELECT body FROM scores WHERE trace_id IN (SELECT value FROM json_each(?)) ORDER BY time DESC LIMIT 2000
"""
TOOLS_OF = """
SELECT trace_id, name, count(*), sum(failed) FROM spans
WHERE trace_id IN (SELECT value FROM json_each(?)) AND type = 'TOOL'
GROUP BY trace_id, name ORDER BY min(start) LIMIT 500
"""
# The spans that tell what was asked and answered, from the best to the last resort.
TELLING = {
    "agent": "SELECT body FROM spans WHERE trace_id = ? AND type = 'AGENT' ORDER BY start LIMIT 1",
    "root": "SELECT body FROM spans WHERE trace_id = ? AND parent_id IS NULL ORDER BY start LIMIT 1",
    "first": "SELECT body FROM spans WHERE trace_id = ? AND type = 'GENERATION' ORDER BY start LIMIT 1",
    "last": "SELECT body FROM spans WHERE trace_id = ? AND type = 'GENERATION' ORDER BY end DESC LIMIT 1",
    "newest": "SELECT body FROM spans WHERE trace_id = ? ORDER BY end DESC LIMIT 1",
}
SESSION = """
SELECT count(*), coalesce(sum(tokens), 0), coalesce(sum(errors > 0), 0), min(start), max(end)
FROM traces WHERE session_id = ?
"""
EVERYTHING = Filters()


class Store:
    """Spans and scores on disk; safe to use from any thread, blocking: keep it off the event loop."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._writer = schema.connect(str(path))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._writer.close()

    def add_spans(self, spans: Iterable[Span]) -> None:
        """Keep the spans; one that came before is replaced."""
        kept = list(spans)
        with self._writing() as db:
            for span in kept:
                schema.add_span(db, span)
            for trace_id in {span.trace_id for span in kept}:
                schema.sum_up(db, trace_id, time.time())

    def add_scores(self, scores: Iterable[Score]) -> None:
        """Keep the scores; one with the same id is replaced."""
        with self._writing() as db:
            for score in scores:
                schema.add_score(db, score)

    def delete_score(self, score_id: str) -> bool:
        """Return whether there was such a score to forget."""
        with self._writing() as db:
            return db.execute("DELETE FROM scores WHERE id = ?", (score_id,)).rowcount > 0

    def latest(self, count: int, filters: Filters = EVERYTHING) -> list[Summary]:
        """Return the newest traces that the filters want, the newest first."""
        with self._reading() as db:
            return [Summary(*row) for row in db.execute(*filters.query(count))]

    def trace(self, trace_id: str) -> Summary | None:
        """Return the line of one trace, None if nothing of it has come."""
        with self._reading() as db:
            row = db.execute(f"{SUMMARIES} WHERE trace_id = ?", (trace_id,)).fetchone()
        return Summary(*row) if row else None

    def session(self, session_id: str) -> Session:
        """Return the sums over the traces of a session."""
        with self._reading() as db:
            return Session(*db.execute(SESSION, (session_id,)).fetchone())

    def observations(self, **where: str) -> list[Observation]:
        """Return the observations whose columns (`trace_id`, `session_id`, …) have these values, by start."""
        spans = self._bodies("spans", "start", where)
        return [Observation(SPAN.validate_json(body)) for body in spans]

    def scores(self, **where: str) -> list[Score]:
        """Return the scores whose columns have these values, by time."""
        return [SCORE.validate_json(body) for body in self._bodies("scores", "time", where)]

    def scores_of(self, trace_ids: Sequence[str]) -> dict[str, list[Score]]:
        """Return the scores of several traces, by trace id; of very many the latest."""
        found: dict[str, list[Score]] = {trace_id: [] for trace_id in trace_ids}
        with self._reading() as db:
            for (body,) in reversed(db.execute(SCORES_OF, (to_json(trace_ids).decode(),)).fetchall()):
                score = SCORE.validate_json(body)
                found[score.trace_id or ""].append(score)
        return found

    def tools_of(self, trace_ids: Sequence[str]) -> dict[str, list[Tool]]:
        """Return the tools that several traces used, by trace id, in the order of their first use."""
        found: dict[str, list[Tool]] = {trace_id: [] for trace_id in trace_ids}
        with self._reading() as db:
            for trace_id, *tool in db.execute(TOOLS_OF, (to_json(trace_ids).decode(),)):
                found[trace_id].append(Tool(*tool))
        return found

    def telling(self, trace_id: str) -> dict[str, Observation]:
        """Return those observations of a trace that tell what was asked and answered, as far as they have come."""
        with self._reading() as db:
            rows = {role: db.execute(query, (trace_id,)).fetchone() for role, query in TELLING.items()}
        return {role: Observation(SPAN.validate_json(row[0])) for role, row in rows.items() if row}

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
        oldest = self._writer.execute("SELECT id, trace_id, start FROM traces ORDER BY start LIMIT 1").fetchone()
        row, trace_id, start = oldest or (None, None, LAST_TIME)
        with self._transaction():
            self._writer.execute("DELETE FROM spans WHERE trace_id = ?", (trace_id,))
            self._writer.execute("DELETE FROM traces WHERE id = ?", (row,))
            self._writer.execute("DELETE FROM words WHERE rowid = ?", (row,))
            self._writer.execute("DELETE FROM scores WHERE trace_id = ? OR time <= ?", (trace_id, start))
        return oldest is not None

    def _pragma(self, name: str) -> Any:
        return self._writer.execute(f"PRAGMA {name}").fetchone()[0]
