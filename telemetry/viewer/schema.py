"""The viewer's file: its tables, and what is written to them."""

import sqlite3
from collections.abc import Callable

from opentelemetry.proto.trace.v1.trace_pb2 import (
    SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK,
    SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK,
)
from pydantic import TypeAdapter
from pydantic_core import to_json

from telemetry.otlp import LAST_TIME, Span
from telemetry.viewer.observation import Observation, text
from telemetry.viewer.score import Score

VERSION = 3
# How much of what was asked and answered can be searched for.
SAID = 1_000

# How much of a heartbeat's status is looked at.
SIGN = 20
# What a span's flags say of a parent in another process.
REMOTE = SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK

PRAGMAS = "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
TABLES = """
CREATE TABLE IF NOT EXISTS spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, remote INTEGER NOT NULL,
    start INTEGER NOT NULL, end INTEGER NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL,
    trace_name TEXT, session_id TEXT, user_id TEXT,
    tokens INTEGER NOT NULL, failed INTEGER NOT NULL, first_token INTEGER, sign TEXT, said TEXT,
    body BLOB NOT NULL,
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX IF NOT EXISTS spans_by_session ON spans (session_id);
CREATE TABLE IF NOT EXISTS traces (
    id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL UNIQUE, start INTEGER NOT NULL, end INTEGER NOT NULL,
    spans INTEGER NOT NULL, tokens INTEGER NOT NULL, errors INTEGER NOT NULL, first_token INTEGER,
    open INTEGER NOT NULL, seen REAL NOT NULL, name TEXT NOT NULL, session_id TEXT, user_id TEXT
);
CREATE INDEX IF NOT EXISTS traces_by_start ON traces (start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_session ON traces (session_id, start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_user ON traces (user_id, start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_name ON traces (name, start, trace_id);
CREATE INDEX IF NOT EXISTS failed_traces ON traces (start, trace_id) WHERE errors > 0;
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (said);
CREATE TABLE IF NOT EXISTS scores (
    id TEXT PRIMARY KEY, trace_id TEXT, session_id TEXT, time INTEGER NOT NULL, name TEXT NOT NULL, number REAL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS scores_by_trace ON scores (trace_id);
CREATE INDEX IF NOT EXISTS scores_by_session ON scores (session_id);
CREATE INDEX IF NOT EXISTS scores_by_time ON scores (time);
CREATE INDEX IF NOT EXISTS scores_by_name ON scores (name, number, trace_id);
"""

ADD_SPAN = "INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_SCORE = "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?)"
# A trace is open while a parent has not come (2, or 1 where that is another process's, which may never send any), or
# while its run waits in a queue (2). What was open when its process died never comes.
SUM_UP = """
INSERT INTO traces (
    trace_id, start, end, spans, tokens, errors, first_token, open, seen, name, session_id, user_id
)
SELECT
    trace_id, min(start), max(end), count(*), sum(tokens), sum(failed), min(first_token),
    CASE WHEN EXISTS (SELECT 1 FROM spans AS s WHERE s.trace_id = spans.trace_id AND sign = 'lost') THEN 0
    ELSE max(coalesce((
        SELECT max(2 - remote) FROM spans AS s WHERE s.trace_id = spans.trace_id AND s.parent_id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM spans AS p WHERE p.trace_id = s.trace_id AND p.span_id = s.parent_id)
    ), 0), coalesce(2 * ('queued' = (
        SELECT sign FROM spans AS s WHERE s.trace_id = spans.trace_id AND sign IS NOT NULL ORDER BY start DESC LIMIT 1
    )), 0)) END,
    ?,
    coalesce(
        (SELECT trace_name FROM spans AS s WHERE s.trace_id = spans.trace_id AND trace_name > ''
            ORDER BY start DESC LIMIT 1),
        (SELECT name FROM spans AS s WHERE s.trace_id = spans.trace_id AND parent_id IS NULL LIMIT 1),
        ''
    ),
    (SELECT session_id FROM spans AS s WHERE s.trace_id = spans.trace_id AND session_id > ''
        ORDER BY start DESC LIMIT 1),
    (SELECT user_id FROM spans AS s WHERE s.trace_id = spans.trace_id AND user_id > ''
        ORDER BY start DESC LIMIT 1)
FROM spans WHERE trace_id = ? GROUP BY trace_id
ON CONFLICT (trace_id) DO UPDATE SET
    start = excluded.start, end = excluded.end, spans = excluded.spans, tokens = excluded.tokens,
    errors = excluded.errors, first_token = excluded.first_token, open = excluded.open, seen = excluded.seen,
    name = excluded.name, session_id = excluded.session_id, user_id = excluded.user_id
"""
INDEX_WORDS = """
INSERT OR REPLACE INTO words (rowid, said)
SELECT id, (SELECT group_concat(said, ' ') FROM (
    SELECT said FROM spans WHERE trace_id = traces.trace_id AND said IS NOT NULL ORDER BY start LIMIT 4
)) FROM traces WHERE trace_id = ?
"""

SPAN = TypeAdapter(Span)
SCORE = TypeAdapter(Score)


def connect(path: str) -> sqlite3.Connection:
    """Return a connection to the file, with the tables of this version; a file of another one is read anew."""
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.executescript(PRAGMAS)
    if _version(db) != VERSION:
        _renew(db)
    return db


def add_span(db: sqlite3.Connection, span: Span) -> None:
    """Write a span; one that came before is replaced."""
    seen = Observation(span)
    row = (
        *(
            span.trace_id,
            span.span_id,
            span.parent_id,
            span.flags & REMOTE == REMOTE,
            span.start,
            span.end,
            span.name,
            seen.type,
        ),
        *(seen.trace_name, seen.session_id, seen.user_id, seen.tokens, seen.level == "ERROR"),
        _first_token(seen),
        _sign(span),
        _said(seen) if span.parent_id is None or seen.type == "AGENT" else None,
        to_json(span, bytes_mode="base64", inf_nan_mode="strings"),
    )
    db.execute(ADD_SPAN, row)


def sum_up(db: sqlite3.Connection, trace_id: str, seen: float) -> None:
    """Bring the row of a trace up to what its spans say now."""
    db.execute(SUM_UP, (seen, trace_id))
    db.execute(INDEX_WORDS, (trace_id,))


def add_score(db: sqlite3.Connection, score: Score) -> None:
    """Write a score; one with the same id is replaced."""
    number = None if isinstance(score.value, str) else score.value
    row = (score.id, score.trace_id, score.session_id, score.time, score.name, number, to_json(score))
    db.execute(ADD_SCORE, row)


def _sign(span: Span) -> str | None:
    if span.attributes.get("turn.status") == "lost":
        return "lost"
    return text(span.attributes.get("status"))[:SIGN] if span.name == "heartbeat" else None


def _first_token(seen: Observation) -> int | None:
    if seen.first_token is None:
        return None
    return min(seen.span.start + int(seen.first_token * 1e9), LAST_TIME)


def _said(seen: Observation) -> str:
    return " ".join(text(part)[:SAID] for part in (seen.input, seen.output, seen.message) if part)


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def _renew(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    kept = _set_aside(db)
    for statement in filter(str.strip, TABLES.split(";")):
        db.execute(statement)
    if "spans" in kept:
        _refill(db, "spans", lambda body: add_span(db, SPAN.validate_json(body)))
        for (trace_id,) in db.execute("SELECT DISTINCT trace_id FROM spans").fetchall():
            sum_up(db, trace_id, 0)
    if "scores" in kept:
        _refill(db, "scores", lambda body: add_score(db, SCORE.validate_json(body)))
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _set_aside(db: sqlite3.Connection) -> set[str]:
    """Return which tables there were, renamed; what follows from them is gone."""
    found = db.execute("SELECT type, name FROM sqlite_master WHERE sql > '' AND name NOT LIKE 'words_%'").fetchall()
    tables = {name for kind, name in found if kind == "table"}
    for name in [name for kind, name in found if kind == "index"]:
        db.execute(f"DROP INDEX {name}")
    for name in tables & {"traces", "words"}:
        db.execute(f"DROP TABLE {name}")
    for name in tables & {"spans", "scores"}:
        db.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
    return tables


def _refill(db: sqlite3.Connection, table: str, add: Callable[[bytes], None]) -> None:
    for (body,) in db.execute(f"SELECT body FROM old_{table}"):  # noqa: S608 - the name is our own
        add(body)
    db.execute(f"DROP TABLE old_{table}")
