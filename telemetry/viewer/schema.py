"""The viewer's file: its tables, and what is written to them."""

import sqlite3
from collections.abc import Callable

from opentelemetry.proto.trace.v1.trace_pb2 import (
    SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK,
    SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK,
)
from pydantic import TypeAdapter
from pydantic_core import to_json

from telemetry.export.otlp import Span
from telemetry.moment import LAST_TIME
from telemetry.viewer.messages import answer, question
from telemetry.viewer.observation import Observation, experiment_of, text
from telemetry.viewer.prices import Prices
from telemetry.viewer.score import Score

VERSION = 9
# How many characters of a question, an answer or an error can be searched for.
SEARCHABLE = 1_000
# How many characters of them a line of the list has.
LINE = 200
# How many characters of a heartbeat's status are read.
HEARTBEAT_STATUS = 20
# How many distinct names of tools and models, ids of runs, can be searched for in a trace.
NAMES = 50
# The flags of a span whose parent is in another process.
REMOTE = SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK

# A row that is replaced has to run the triggers of a deletion.
PRAGMAS = """
PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
PRAGMA recursive_triggers = ON;
"""
# `words_terms` lists the trigrams that the index has: shorter words are looked up as beginnings of these.
TABLES = """
CREATE TABLE IF NOT EXISTS spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, remote INTEGER NOT NULL, root INTEGER NOT NULL,
    start INTEGER NOT NULL, end INTEGER NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, level TEXT NOT NULL,
    trace_name TEXT, session_id TEXT, user_id TEXT, environment TEXT NOT NULL, version TEXT, public INTEGER NOT NULL,
    model TEXT, tokens INTEGER NOT NULL, cost REAL, failed INTEGER NOT NULL, first_token INTEGER,
    turn_status TEXT, heartbeat_status TEXT, run TEXT, tags TEXT, error_type TEXT,
    question TEXT, answer TEXT, message TEXT, node INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX IF NOT EXISTS spans_by_start ON spans (start, trace_id, span_id);
CREATE INDEX IF NOT EXISTS spans_by_session ON spans (session_id, start, trace_id, span_id)
    WHERE session_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS generations ON spans (start, model, failed, tokens, cost, end, first_token)
    WHERE type = 'GENERATION';
CREATE INDEX IF NOT EXISTS tools ON spans (start, name, failed, end) WHERE type = 'TOOL';
CREATE TABLE IF NOT EXISTS traces (
    id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL UNIQUE, start INTEGER NOT NULL, end INTEGER NOT NULL,
    latency INTEGER NOT NULL, spans INTEGER NOT NULL, tokens INTEGER NOT NULL, cost REAL, errors INTEGER NOT NULL,
    first_token INTEGER, pending INTEGER NOT NULL, updated_at REAL NOT NULL, turn_status TEXT, turn INTEGER NOT NULL,
    public INTEGER NOT NULL, name TEXT NOT NULL, session_id TEXT NOT NULL, user_id TEXT NOT NULL,
    question TEXT NOT NULL, answer TEXT NOT NULL, failure TEXT NOT NULL
);
-- These two have all that tells the status and the sums of a trace, so that its row is not read for them.
CREATE INDEX IF NOT EXISTS traces_by_start ON traces (start, trace_id, turn, turn_status, pending, updated_at, errors);
CREATE INDEX IF NOT EXISTS traces_by_session ON traces (session_id, start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_user ON traces (
    user_id, start, trace_id, turn, tokens, cost, turn_status, pending, updated_at, errors
);
CREATE INDEX IF NOT EXISTS sessions_of_users ON traces (user_id, session_id);
CREATE INDEX IF NOT EXISTS traces_by_name ON traces (name, start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_latency ON traces (latency, start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_first_token ON traces (coalesce(first_token, -1), start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_tokens ON traces (tokens, start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_cost ON traces (coalesce(cost, -1), start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_errors ON traces (errors, start, trace_id);
CREATE INDEX IF NOT EXISTS traces_by_severity ON traces (
    CASE coalesce(turn_status, CASE WHEN errors THEN 'failed' ELSE 'completed' END)
    WHEN 'waiting' THEN 1 WHEN 'cancelled' THEN 2 WHEN 'lost' THEN 3 WHEN 'failed' THEN 4 ELSE 0 END, start, trace_id
);
CREATE INDEX IF NOT EXISTS traces_by_turn_status ON traces (turn_status, start, trace_id);
CREATE INDEX IF NOT EXISTS pending_traces ON traces (start, trace_id) WHERE pending > 0;
CREATE INDEX IF NOT EXISTS failed_traces ON traces (start, trace_id) WHERE errors > 0;
-- The spans of experiments. Only the root of an item has its id in `item`.
CREATE TABLE IF NOT EXISTS experiments (
    experiment TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL, name TEXT NOT NULL, dataset TEXT, item TEXT, PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX IF NOT EXISTS experiments_by_id ON experiments (experiment, start);
CREATE INDEX IF NOT EXISTS experiment_items ON experiments (start, trace_id, span_id) WHERE item IS NOT NULL;
CREATE TABLE IF NOT EXISTS labels (
    kind TEXT NOT NULL, value TEXT NOT NULL, trace INTEGER NOT NULL, PRIMARY KEY (kind, value, trace)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS labels_by_trace ON labels (trace);
-- Which traces link to which: by a span's link, or as the continuation of a run.
CREATE TABLE IF NOT EXISTS links (
    linked TEXT NOT NULL, trace_id TEXT NOT NULL, PRIMARY KEY (linked, trace_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_by_trace ON links (trace_id);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (content, ids, tokenize = trigram);
CREATE VIRTUAL TABLE IF NOT EXISTS words_terms USING fts5vocab (words, row);
CREATE TABLE IF NOT EXISTS prompts (
    name TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (name, version)
);
CREATE TABLE IF NOT EXISTS datasets (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS dataset_items (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, dataset TEXT NOT NULL, updated INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS dataset_items_by_id ON dataset_items (id, number);
CREATE INDEX IF NOT EXISTS dataset_items_by_dataset ON dataset_items (dataset, number);
CREATE TABLE IF NOT EXISTS media (
    id TEXT PRIMARY KEY, type TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, uploaded REAL, body BLOB
);
CREATE TABLE IF NOT EXISTS scores (
    id TEXT PRIMARY KEY, trace_id TEXT, session_id TEXT, observation_id TEXT, experiment_id TEXT,
    time INTEGER NOT NULL, name TEXT NOT NULL, number REAL, value TEXT, data_type TEXT NOT NULL,
    source TEXT NOT NULL, environment TEXT NOT NULL, config_id TEXT, queue_id TEXT,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS scores_by_trace ON scores (trace_id);
CREATE INDEX IF NOT EXISTS scores_by_session ON scores (session_id);
CREATE INDEX IF NOT EXISTS scores_by_time ON scores (time, id);
CREATE INDEX IF NOT EXISTS scores_by_name ON scores (name, number, trace_id);
"""

HOUR = 3600 * 10**9
_MARK = f"""
BEGIN INSERT INTO changed_hours SELECT {{0}}.start / {HOUR}
WHERE NOT EXISTS (SELECT 1 FROM changed_hours WHERE hour = {{0}}.start / {HOUR}); END;
"""  # noqa: S608 - no value in it
_OLD, _NEW = _MARK.format("old"), _MARK.format("new")
# The hours whose figures have changed, for whoever has read them before.
CHANGES = f"""
CREATE TEMP TABLE changed_hours (hour INTEGER PRIMARY KEY);
CREATE TEMP TRIGGER span_added AFTER INSERT ON main.spans WHEN new.type IN ('GENERATION', 'TOOL') {_NEW}
CREATE TEMP TRIGGER span_deleted AFTER DELETE ON main.spans WHEN old.type IN ('GENERATION', 'TOOL') {_OLD}
CREATE TEMP TRIGGER trace_added AFTER INSERT ON main.traces {_NEW}
CREATE TEMP TRIGGER trace_moved AFTER UPDATE OF start ON main.traces WHEN old.start <> new.start {_OLD}
CREATE TEMP TRIGGER trace_changed AFTER UPDATE ON main.traces {_NEW}
CREATE TEMP TRIGGER trace_deleted AFTER DELETE ON main.traces {_OLD}
"""

ADD_SPAN = f"INSERT OR REPLACE INTO spans VALUES ({', '.join('?' * 31)})"  # noqa: S608 - no value in it
ADD_SCORE = f"INSERT OR REPLACE INTO scores VALUES ({', '.join('?' * 15)})"  # noqa: S608 - as above
ADD_EXPERIMENT = "INSERT OR REPLACE INTO experiments VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
TURN_STATUSES = ("completed", "waiting", "cancelled", "failed", "lost")


FIRST = """
(SELECT {0} FROM spans AS s WHERE s.trace_id = spans.trace_id AND {0} > '' AND {1} ORDER BY {2} LIMIT 1)
"""


def _first(column: str, condition: str, order: str = "start") -> str:
    """Return the SQL of the first value of a column that is not empty, among those spans of the trace."""
    return FIRST.format(column, condition, order)


# A trace is pending while a parent is missing (2, or 1 if it belongs to another process, which may never send any), or
# while its run is queued (2). Spans that were open when their process died never arrive.
UPDATE_TRACE = f"""
INSERT INTO traces (
    trace_id, start, end, latency, spans, tokens, cost, errors, first_token, pending, updated_at, turn_status, turn,
    public, name, session_id, user_id, question, answer, failure
)
SELECT
    trace_id, min(start), max(end), max(max(end) - min(start), 0), count(*), sum(tokens), sum(cost), sum(failed),
    max(min(first_token) - min(start), 0),
    CASE WHEN EXISTS (SELECT 1 FROM spans AS s WHERE s.trace_id = spans.trace_id AND turn_status = 'lost') THEN 0
    ELSE max(coalesce((
        SELECT max(2 - remote) FROM spans AS s WHERE s.trace_id = spans.trace_id AND s.parent_id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM spans AS p WHERE p.trace_id = s.trace_id AND p.span_id = s.parent_id)
    ), 0), coalesce(2 * ('queued' = {_first("heartbeat_status", "1", "start DESC")}), 0)) END,
    :now,
    {_first("turn_status", f"turn_status IN {TURN_STATUSES}", "type <> 'AGENT', start")},
    max(type IN ('AGENT', 'GENERATION') OR coalesce(question, answer, '') > ''),
    max(public),
    coalesce({_first("trace_name", "1", "start DESC")}, {_first("name", "parent_id IS NULL")}, ''),
    coalesce({_first("session_id", "1", "start DESC")}, ''),
    coalesce({_first("user_id", "1", "start DESC")}, ''),
    substr(coalesce({_first("question", "type = 'AGENT'")}, {_first("question", "parent_id IS NULL")},
        {_first("question", "type = 'GENERATION'")}, ''), 1, {LINE}),
    substr(coalesce({_first("answer", "type = 'AGENT'")}, {_first("answer", "parent_id IS NULL")},
        {_first("answer", "type = 'GENERATION'", "end DESC")}, ''), 1, {LINE}),
    substr(coalesce({_first("message", "failed", "type <> 'AGENT', parent_id IS NOT NULL, end")}, ''), 1, {LINE})
FROM spans WHERE trace_id = :trace_id GROUP BY trace_id
ON CONFLICT (trace_id) DO UPDATE SET
    start = excluded.start, end = excluded.end, latency = excluded.latency, spans = excluded.spans,
    tokens = excluded.tokens, cost = excluded.cost, errors = excluded.errors, first_token = excluded.first_token,
    pending = excluded.pending, updated_at = excluded.updated_at, turn_status = excluded.turn_status,
    turn = excluded.turn, public = excluded.public, name = excluded.name, session_id = excluded.session_id,
    user_id = excluded.user_id, question = excluded.question, answer = excluded.answer, failure = excluded.failure
"""  # noqa: S608 - the names are our own
UPDATE_LABELS = """
INSERT OR IGNORE INTO labels (kind, value, trace)
WITH mine AS (SELECT * FROM spans WHERE trace_id = :trace_id)
SELECT 'model', model, :id FROM mine WHERE model > ''
UNION SELECT 'tool', name, :id FROM mine WHERE type = 'TOOL'
UNION SELECT 'error', error_type, :id FROM mine WHERE error_type > ''
UNION SELECT 'environment', environment, :id FROM mine
UNION SELECT 'version', version, :id FROM mine WHERE version > ''
UNION SELECT 'tag', value, :id FROM mine, json_each(mine.tags)
"""
# Behind each part are two line ends, so that its last characters too begin a trigram.
CONTENT = f"""
SELECT group_concat(part, char(10, 10)) || char(10, 10) FROM (
    SELECT name || char(10, 10) || user_id AS part FROM traces WHERE id = :id
    UNION ALL SELECT value FROM (
        SELECT value FROM labels WHERE trace = :id AND kind NOT IN ('environment', 'version') LIMIT {NAMES}
    )
    UNION ALL SELECT * FROM (
        SELECT coalesce(question, '') || char(10, 10) || coalesce(answer, '') || char(10, 10) || coalesce(message, '')
        FROM spans WHERE trace_id = :trace_id AND (question > '' OR answer > '' OR message > '')
        ORDER BY type <> 'AGENT', parent_id IS NOT NULL, start LIMIT 4
    )
)
"""  # noqa: S608 - the names are our own
IDS = f"""
SELECT group_concat(part, char(10)) FROM (
    SELECT trace_id || char(10) || session_id AS part FROM traces WHERE id = :id
    UNION ALL SELECT run FROM (SELECT DISTINCT run FROM spans WHERE trace_id = :trace_id AND run > '' LIMIT {NAMES})
)
"""  # noqa: S608 - as above

SPAN = TypeAdapter(Span)
SCORE = TypeAdapter(Score)


def connect(path: str, prices: Prices) -> sqlite3.Connection:
    """Return a connection to the file, with the tables of this version; a file of another version is converted."""
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.executescript(PRAGMAS)
    if _version(db) != VERSION:
        _renew(db, prices)
    db.executescript(CHANGES)
    return db


def take_changed_hours(db: sqlite3.Connection) -> list[int]:
    """Return the hours since 1970 whose figures were written to since the last call."""
    return [hour for (hour,) in db.execute("DELETE FROM changed_hours RETURNING hour").fetchall()]


def add_span(db: sqlite3.Connection, span: Span, prices: Prices) -> None:
    """Write a span; an earlier one with the same id is replaced."""
    observation = Observation(span, prices)
    spoken = span.parent_id is None or observation.type in ("AGENT", "GENERATION")
    row = (
        span.trace_id,
        span.span_id,
        span.parent_id,
        span.flags & REMOTE == REMOTE,
        observation.is_root,
        span.start,
        span.end,
        span.name,
        observation.type,
        observation.level,
        observation.trace_name,
        observation.session_id,
        observation.user_id,
        observation.environment,
        observation.version,
        observation.public,
        observation.model,
        observation.tokens,
        observation.cost,
        observation.level == "ERROR",
        _first_token(observation),
        _text(span.attributes.get("turn.status")),
        _text(span.attributes.get("status"))[:HEARTBEAT_STATUS] if span.name == "heartbeat" else None,
        _text(span.attributes.get("langfuse.trace.metadata.run")),
        to_json(observation.tags).decode() if observation.tags else None,
        observation.error_type,
        question(observation)[:SEARCHABLE] if spoken else None,
        answer(observation)[:SEARCHABLE] if spoken else None,
        observation.message[:SEARCHABLE],
        observation.is_node,
        to_json(span, bytes_mode="base64", inf_nan_mode="strings"),
    )
    db.execute(ADD_SPAN, row)
    for linked in observation.linked_traces:
        db.execute("INSERT OR IGNORE INTO links VALUES (?, ?)", (linked, span.trace_id))
    if of := experiment_of(observation):
        experiment = (of.id, span.start, max(span.start, span.end), span.trace_id, span.span_id, of.name, of.dataset)
        db.execute(ADD_EXPERIMENT, (*experiment, of.item_id if of.is_root else None))


def update_trace(db: sqlite3.Connection, trace_id: str, now: float) -> None:
    """Update the row of a trace, its labels and its searchable text from its spans."""
    db.execute(UPDATE_TRACE, {"trace_id": trace_id, "now": now})
    (row,) = db.execute("SELECT id FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
    keys = {"trace_id": trace_id, "id": row}
    db.execute("DELETE FROM labels WHERE trace = :id", keys)
    db.execute(UPDATE_LABELS, keys)
    searchable = db.execute(CONTENT, keys).fetchone() + db.execute(IDS, keys).fetchone()
    # Indexing costs most of all this: only what has changed is indexed again.
    if searchable != db.execute("SELECT content, ids FROM words WHERE rowid = ?", (row,)).fetchone():
        db.execute("INSERT OR REPLACE INTO words (rowid, content, ids) VALUES (?, ?, ?)", (row, *searchable))


def delete_trace(db: sqlite3.Connection, trace_id: str) -> bool:
    """Delete a trace with its spans, scores and all that is derived from them; return whether it existed."""
    row = db.execute("DELETE FROM traces WHERE trace_id = ? RETURNING id", (trace_id,)).fetchone()
    for table in ("spans", "scores", "experiments", "links"):
        db.execute(f"DELETE FROM {table} WHERE trace_id = ?", (trace_id,))  # noqa: S608 - the names are our own
    if row:
        db.execute("DELETE FROM words WHERE rowid = ?", row)
        db.execute("DELETE FROM labels WHERE trace = ?", row)
    return row is not None


def add_score(db: sqlite3.Connection, score: Score) -> None:
    """Write a score; one with the same id is replaced."""
    words = isinstance(score.value, str)
    row = (
        score.id,
        score.trace_id,
        score.session_id,
        score.observation_id,
        score.dataset_run_id,
        score.time,
        score.name,
        None if words else score.value,
        score.value if words else None,
        score.data_type,
        score.source,
        score.environment,
        score.config_id,
        score.queue_id,
        to_json(score),
    )
    db.execute(ADD_SCORE, row)


def _first_token(observation: Observation) -> int | None:
    if observation.first_token is None:
        return None
    return min(observation.span.start + int(observation.first_token * 1e9), LAST_TIME)


def _text(value: object) -> str:
    return "" if value is None else text(value)


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def _renew(db: sqlite3.Connection, prices: Prices) -> None:
    db.execute("BEGIN IMMEDIATE")
    kept = _set_aside(db)
    for statement in filter(str.strip, TABLES.split(";")):
        db.execute(statement)
    if "spans" in kept:
        _refill(db, "spans", lambda body: add_span(db, SPAN.validate_json(body), prices))
        for (trace_id,) in db.execute("SELECT DISTINCT trace_id FROM spans").fetchall():
            update_trace(db, trace_id, 0)
    if "scores" in kept:
        _refill(db, "scores", lambda body: add_score(db, SCORE.validate_json(body)))
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _set_aside(db: sqlite3.Connection) -> set[str]:
    """Rename the old tables, drop derived ones, and return the names."""
    found = db.execute("SELECT type, name FROM sqlite_master WHERE sql > '' AND name NOT LIKE 'words_%'").fetchall()
    tables = {name for kind, name in found if kind == "table"}
    for name in [name for kind, name in found if kind == "index"]:
        db.execute(f"DROP INDEX {name}")
    for name in ("words_terms", "words", "traces", "labels", "experiments", "links"):
        db.execute(f"DROP TABLE IF EXISTS {name}")
    for name in tables & {"spans", "scores"}:
        db.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
    return tables


def _refill(db: sqlite3.Connection, table: str, add: Callable[[bytes], None]) -> None:
    for (body,) in db.execute(f"SELECT body FROM old_{table}"):  # noqa: S608 - the name is our own
        add(body)
    db.execute(f"DROP TABLE old_{table}")
