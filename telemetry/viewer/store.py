"""Store spans and scores in one SQLite file of limited size."""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from telemetry.export.otlp import Span
from telemetry.moment import LAST_TIME
from telemetry.viewer import schema
from telemetry.viewer.figures import HOUR_S, Hours, Period, read_periods
from telemetry.viewer.observation import LIST_PRICES, Observation, SpanSummary
from telemetry.viewer.overview import ScoreFigures
from telemetry.viewer.prices import Prices
from telemetry.viewer.schema import SCORE, SPAN
from telemetry.viewer.score import Score
from telemetry.viewer.summary import (
    GroupSummary,
    SessionSummary,
    ToolUse,
    TraceFilters,
    TraceSummary,
    state,
    summaries,
)

SCORES_OF = """
SELECT body FROM scores WHERE trace_id IN (SELECT value FROM json_each(?)) ORDER BY time DESC LIMIT 2000
"""
OBSERVATIONS = """
SELECT body, (SELECT public FROM traces WHERE traces.trace_id = spans.trace_id) FROM spans
WHERE {where} ORDER BY start DESC, trace_id DESC, span_id DESC LIMIT ?
"""
SPANS = """
SELECT span_id, parent_id, start, end, name, type, level, tokens, cost, node FROM spans WHERE trace_id = ?
ORDER BY start, span_id
"""
TAGS = "SELECT value FROM labels WHERE kind = 'tag' AND trace = (SELECT id FROM traces WHERE trace_id = ?)"
SCORES = "SELECT body FROM scores WHERE {where} ORDER BY time DESC, id DESC LIMIT ?"
TOOLS = """
SELECT trace_id, name, count(*), sum(failed) FROM spans
WHERE trace_id IN (SELECT value FROM json_each(?)) AND type = 'TOOL'
GROUP BY trace_id, name ORDER BY min(start) LIMIT 500
"""
LINKED = "SELECT linked FROM links WHERE trace_id = ? LIMIT 50"
LINKING = "SELECT trace_id FROM links WHERE linked = ? LIMIT 50"
# The spans to take question and answer from, best first.
KEY_OBSERVATIONS = {
    "agent": "SELECT body FROM spans WHERE trace_id = ? AND type = 'AGENT' ORDER BY start LIMIT 1",
    "root": "SELECT body FROM spans WHERE trace_id = ? AND parent_id IS NULL ORDER BY start LIMIT 1",
    "first": "SELECT body FROM spans WHERE trace_id = ? AND type = 'GENERATION' ORDER BY start LIMIT 1",
    "last": "SELECT body FROM spans WHERE trace_id = ? AND type = 'GENERATION' ORDER BY end DESC LIMIT 1",
    "newest": "SELECT body FROM spans WHERE trace_id = ? ORDER BY end DESC LIMIT 1",
}
SESSION = """
SELECT count(*), coalesce(sum(tokens), 0), sum(cost), coalesce(sum({state} IN ('failed', 'lost')), 0),
min(start), max(end)
FROM traces WHERE session_id = ?
"""
# The facets count only these, so that the cost of a page does not grow with the number of traces.
COUNTED = 2_000
SESSION_SCORES = 100
FACET_VALUES = 12
FACETS = """
WITH page AS MATERIALIZED (
    SELECT id, trace_id, name, user_id, {state} AS state FROM traces WHERE {where} ORDER BY start DESC LIMIT ?
)
SELECT 'name' AS facet, name AS value, count(*) AS traces FROM page WHERE name > '' GROUP BY value
UNION ALL SELECT 'user', user_id, count(*) FROM page WHERE user_id > '' GROUP BY user_id
UNION ALL SELECT 'status', state, count(*) FROM page GROUP BY state
UNION ALL SELECT kind, value, count(*) FROM page JOIN labels ON trace = id GROUP BY kind, value
UNION ALL SELECT 'score', scores.name, count(DISTINCT trace_id) FROM page JOIN scores USING (trace_id)
    GROUP BY scores.name
ORDER BY traces DESC, value
"""
# The traces that make a label a frequent one.
FREQUENT = 5_000
IS_FREQUENT = "SELECT 1 FROM labels WHERE kind = ? AND value = ? LIMIT 1 OFFSET ?"
# The first page is looked for among so many traces: with a frequent word or label, all others would take long.
SAMPLE = 1_000
SAMPLES = {
    "words": "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT ?",
    "label": "SELECT trace FROM labels WHERE kind = ? AND value = ? ORDER BY trace DESC LIMIT ?",
}
# Whether a trace that is not in a sample could begin after one that is.
IS_NEWER = "SELECT 1 FROM traces WHERE start >= ? AND id < ? LIMIT 1"
# The groups of the page are found in the index; only their traces are summed up.
GROUPS = """
WITH page AS MATERIALIZED (
    SELECT {column} AS id, max(start) AS latest FROM traces WHERE {column} > '' GROUP BY {column}
    HAVING (max(start), {column}) < (?, ?) ORDER BY max(start) DESC, {column} DESC LIMIT ?
)
SELECT id, sum(turn), count(*), latest, sum(tokens), sum(cost), sum({state} IN ('failed', 'lost')),
coalesce((SELECT user_id FROM traces WHERE {column} = page.id AND user_id > '' ORDER BY start DESC LIMIT 1), ''),
{sessions},
coalesce((
    SELECT question FROM traces WHERE {column} = page.id AND turn AND question > '' ORDER BY start {first} LIMIT 1
), ''),
coalesce((
    SELECT answer FROM traces WHERE {column} = page.id AND turn AND answer > '' ORDER BY start DESC LIMIT 1
), '')
FROM page JOIN (
    SELECT {column} AS member, turn, tokens, cost, turn_status, pending, updated_at, errors FROM traces
) ON member = id
GROUP BY id ORDER BY latest DESC, id DESC
"""
# In the order of their index, so that equal ones follow each other.
SESSIONS_OF_USER = """
(SELECT count(*) FROM (
    SELECT DISTINCT session_id FROM traces INDEXED BY sessions_of_users WHERE user_id = page.id AND session_id > ''
))
"""
SCORE_FIGURES = """
SELECT name, count(*), sum(number > 0), avg(number) FROM scores
WHERE time >= ? AND number IS NOT NULL GROUP BY name ORDER BY count(*) DESC LIMIT 50
"""
ALL_TRACES = TraceFilters(all="1")
# How often what is too old is deleted, and how many traces at a time.
AGE_CHECK_S = 60.0
AT_ONCE = 1_000

Condition = tuple[str, Sequence[Any]]


class Store:
    """Spans and scores on disk; safe to use from any thread. It blocks: do not call it on the event loop."""

    def __init__(
        self, path: Path, max_bytes: int, max_age_s: float | None = None, prices: Prices = LIST_PRICES
    ) -> None:
        # It holds what people said. SQLite creates its further files with the same mode.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        if path.is_file():
            with suppress(PermissionError):  # somebody else's
                path.chmod(0o600)
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._max_age_s = max_age_s
        self._checked = 0.0
        self._prices = prices
        self._writer = schema.connect(str(path), prices)
        self._hours = Hours()
        if max_age_s is not None:
            self._forget_old()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._writer.close()

    def add_spans(self, spans: Iterable[Span]) -> None:
        """Store the spans; an earlier one with the same id is replaced."""
        latest = {(span.trace_id, span.span_id): span for span in spans}
        with self.writing() as db:
            for span in latest.values():
                schema.add_span(db, span, self._prices)
            for trace_id in {span.trace_id for span in latest.values()}:
                schema.update_trace(db, trace_id, time.time())

    def add_scores(self, scores: Iterable[Score]) -> None:
        """Store the scores; one with the same id is replaced."""
        with self.writing() as db:
            for score in scores:
                schema.add_score(db, score)

    def delete_score(self, score_id: str) -> bool:
        """Delete a score; return whether it existed."""
        with self.writing() as db:
            return db.execute("DELETE FROM scores WHERE id = ?", (score_id,)).rowcount > 0

    def delete_trace(self, trace_id: str) -> bool:
        """Delete a trace and its scores; return whether it existed."""
        with self.writing() as db:
            return schema.delete_trace(db, trace_id)

    def linked(self, trace_id: str) -> tuple[list[TraceSummary], list[TraceSummary]]:
        """Return the traces that a trace links to, and those that link to it."""
        with self.reading() as db:
            found = [
                [TraceSummary(*row) for row in db.execute(f"{summaries()} WHERE trace_id IN ({query})", (trace_id,))]
                for query in (LINKED, LINKING)
            ]
        return found[0], found[1]

    def latest(self, count: int, filters: TraceFilters = ALL_TRACES) -> list[TraceSummary]:
        """Return the first traces that match the filters, in the filters' order; by default the newest first."""
        with self.reading() as db:
            frequent = _frequent(db, filters)
            if not filters.sort and (sample := _sample(db, filters, SAMPLE)):
                found = [TraceSummary(*row) for row in db.execute(*filters.query(count, frequent, sample))]
                is_all = len(sample) < SAMPLE
                if is_all or (
                    len(found) == count and not db.execute(IS_NEWER, (found[-1].start, sample[-1])).fetchone()
                ):
                    return found
            return [TraceSummary(*row) for row in db.execute(*filters.query(count, frequent))]

    def trace(self, trace_id: str) -> TraceSummary | None:
        """Return the summary of one trace, None if none of its spans has arrived."""
        with self.reading() as db:
            row = db.execute(f"{summaries()} WHERE trace_id = ?", (trace_id,)).fetchone()
        return TraceSummary(*row) if row else None

    def session(self, session_id: str) -> SessionSummary:
        """Return the sums over the traces of a session."""
        with self.reading() as db:
            return SessionSummary(*db.execute(SESSION.format(state=state()), (session_id,)).fetchone())

    def facets(self, filters: TraceFilters) -> dict[str, dict[str, int]]:
        """Return by facet how many of the newest matching traces have each value, most frequent first."""
        found: dict[str, dict[str, int]] = {}
        with self.reading() as db:
            # With further filters, fewer of the traces with these words fit.
            sample = _sample(db, filters, COUNTED if len(filters.given) == 1 else 4 * COUNTED)
            where, values = filters.where(_frequent(db, filters), sample)
            for facet, value, count in db.execute(FACETS.format(state=state(), where=where), (*values, COUNTED)):
                if len(known := found.setdefault(facet, {})) < FACET_VALUES:
                    known[value] = count
        return found

    def sessions(self, count: int, before: str = "") -> list[GroupSummary]:
        """Return the sessions whose latest trace started last."""
        return self._groups("session_id", "ASC", "1", count, before)

    def users(self, count: int, before: str = "") -> list[GroupSummary]:
        """Return the users whose latest trace started last."""
        return self._groups("user_id", "DESC", SESSIONS_OF_USER, count, before)

    def periods(self, size_s: int, start: int) -> dict[int, Period]:
        """Return the figures since then by periods of this length in seconds, by their number since 1970."""
        if size_s == HOUR_S:
            with self._lock:
                changed, version = schema.take_changed_hours(self._writer), self._pragma("data_version")
            with self.reading() as db:
                return self._hours.since(start // HOUR_S, db, changed, version)
        with self.reading() as db:
            return read_periods(db, size_s, start * 10**9)

    def score_figures(self, start: int) -> list[ScoreFigures]:
        """Return the numeric scores since then."""
        with self.reading() as db:
            return [ScoreFigures(*row) for row in db.execute(SCORE_FIGURES, (start,))]

    def spans(self, trace_id: str) -> list[SpanSummary]:
        """Return what the tree of a trace shows of its spans, by start."""
        with self.reading() as db:
            return [SpanSummary(*row) for row in db.execute(SPANS, (trace_id,))]

    def tags(self, trace_id: str) -> list[str]:
        """Return the tags of a trace."""
        with self.reading() as db:
            return [tag for (tag,) in db.execute(TAGS, (trace_id,))]

    def observations(self, trace_id: str) -> list[Observation]:
        """Return the observations of a trace, by start."""
        query = "SELECT body FROM spans WHERE trace_id = ? ORDER BY start, span_id"
        with self.reading() as db:
            return [self.observation_of(body) for (body,) in db.execute(query, (trace_id,))]

    def observation(self, trace_id: str, span_id: str) -> Observation | None:
        """Return one observation, None if it has not arrived."""
        query = "SELECT body FROM spans WHERE trace_id = ? AND span_id = ?"
        with self.reading() as db:
            row = db.execute(query, (trace_id, span_id)).fetchone()
        return self.observation_of(row[0]) if row else None

    def find_observations(self, conditions: Sequence[Condition], count: int) -> list[tuple[Observation, bool]]:
        """Return the newest observations that match all conditions, each with whether its trace is public."""
        query = OBSERVATIONS.format(where=_all(conditions))
        with self.reading() as db:
            rows = db.execute(query, (*_values(conditions), count))
            return [(self.observation_of(body), bool(public)) for body, public in rows]

    def find_scores(self, conditions: Sequence[Condition], count: int) -> list[Score]:
        """Return the newest scores that match all conditions."""
        query = SCORES.format(where=_all(conditions))
        with self.reading() as db:
            rows = db.execute(query, (*_values(conditions), count))
            return [SCORE.validate_json(body) for (body,) in rows]

    def scores(self, trace_id: str) -> list[Score]:
        """Return the scores of a trace, by time."""
        return self.scores_of([trace_id])[trace_id]

    def scores_of_session(self, session_id: str) -> list[Score]:
        """Return the scores of a session itself, by time."""
        return self.find_scores([("session_id = ? AND trace_id IS NULL", [session_id])], SESSION_SCORES)[::-1]

    def scores_of(self, trace_ids: Sequence[str]) -> dict[str, list[Score]]:
        """Return the scores of several traces, by trace id; only the latest if there are very many."""
        found: dict[str, list[Score]] = {trace_id: [] for trace_id in trace_ids}
        with self.reading() as db:
            for (body,) in reversed(db.execute(SCORES_OF, (to_json(trace_ids).decode(),)).fetchall()):
                score = SCORE.validate_json(body)
                found[score.trace_id or ""].append(score)
        return found

    def tools(self, trace_ids: Sequence[str]) -> dict[str, list[ToolUse]]:
        """Return the tools that several traces used, by trace id, in the order of their first use."""
        found: dict[str, list[ToolUse]] = {trace_id: [] for trace_id in trace_ids}
        with self.reading() as db:
            for trace_id, *tool in db.execute(TOOLS, (to_json(trace_ids).decode(),)):
                found[trace_id].append(ToolUse(*tool))
        return found

    def key_observations(self, trace_id: str) -> dict[str, Observation]:
        """Return the observations of a trace with its question and its answer, as far as they have arrived."""
        with self.reading() as db:
            rows = {role: db.execute(query, (trace_id,)).fetchone() for role, query in KEY_OBSERVATIONS.items()}
        return {role: self.observation_of(row[0]) for role, row in rows.items() if row}

    def observation_of(self, body: bytes) -> Observation:
        """Return the observation of a stored span."""
        return Observation(SPAN.validate_json(body), self._prices)

    def size(self) -> int:
        """Return how many bytes of the file are in use."""
        with self._lock:
            return self._used()

    def _groups(self, column: str, first: str, sessions: str, count: int, before: str) -> list[GroupSummary]:
        latest, _, group = before.partition("-")
        query = GROUPS.format(column=column, first=first, sessions=sessions, state=state())
        with self.reading() as db:
            return [
                GroupSummary(*row)
                for row in db.execute(query, (min(int(latest or LAST_TIME), LAST_TIME), group, count))
            ]

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Return a separate connection for the block."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Return the connection for writing; the block is one transaction."""
        with self._lock:
            with self._transaction():
                yield self._writer
            if self._max_age_s is not None and time.monotonic() - self._checked > AGE_CHECK_S:
                self._forget_old()
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
        """Delete the oldest traces until a tenth of the limit is free, so that not every write has to."""
        while self._used() > self._max_bytes * 0.9 and self._forget_oldest():
            pass
        self._writer.execute("PRAGMA incremental_vacuum").fetchall()
        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _forget_oldest(self) -> bool:
        oldest = self._writer.execute("SELECT trace_id, start FROM traces ORDER BY start LIMIT 1").fetchone()
        trace_id, start = oldest or ("", LAST_TIME)
        with self._transaction():
            schema.delete_trace(self._writer, trace_id)
            self._forget_until(start)
        return oldest is not None

    def _forget_until(self, start: int) -> None:
        """Delete the scores and files that belong to no trace and are older than the oldest one."""
        self._writer.execute("DELETE FROM scores WHERE time <= ?", (start,))
        self._writer.execute("DELETE FROM media WHERE uploaded <= ?", (start / 1e9,))

    def _forget_old(self) -> None:
        """Delete the traces that began before the greatest age, a limited number at a time."""
        self._checked = time.monotonic()
        start = time.time_ns() - int((self._max_age_s or 0) * 1e9)
        with self._transaction():
            for (trace_id,) in self._writer.execute(
                "SELECT trace_id FROM traces WHERE start < ? ORDER BY start LIMIT ?", (start, AT_ONCE)
            ).fetchall():
                schema.delete_trace(self._writer, trace_id)
            self._forget_until(start)
        self._writer.execute("PRAGMA incremental_vacuum").fetchall()

    def _pragma(self, name: str) -> Any:
        return self._writer.execute(f"PRAGMA {name}").fetchone()[0]


def _frequent(db: sqlite3.Connection, filters: TraceFilters) -> list[str]:
    """Return the kinds of the labels in the filters that many traces have."""
    return [
        kind for kind, value in filters.labels.items() if db.execute(IS_FREQUENT, (kind, value, FREQUENT)).fetchone()
    ]


def _sample(db: sqlite3.Connection, filters: TraceFilters, size: int) -> list[int]:
    """Return the traces that came last, the latest first, of those with the words, or with a label if it is alone."""
    if match := filters.match:
        rows = db.execute(SAMPLES["words"], (match, size))
    elif filters.labels and len(filters.given) == 1:
        [label] = filters.labels.items()
        rows = db.execute(SAMPLES["label"], (*label, size))
    else:
        return []
    return [row for (row,) in rows]


def _all(conditions: Sequence[Condition]) -> str:
    return " AND ".join(f"({sql})" for sql, _ in conditions) or "1"


def _values(conditions: Sequence[Condition]) -> list[Any]:
    return [value for _, values in conditions for value in values]
