"""Store the scores for one backend on disk, only the latest value of each, and send them.

Unlike spans, all processes that score for the same account share one file, so that a newer value in one process cannot
be overwritten by an older one that another process still holds.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import UUID, uuid5
from weakref import WeakSet

from telemetry import pipeline
from telemetry.delivery.backoff import BackendState, Pausable
from telemetry.delivery.forks import watch_forks
from telemetry.delivery.http import Response
from telemetry.delivery.lock import LockedError, fcntl, open_locked
from telemetry.delivery.store import Schema, connect, is_transient, last_written, seconds_since, set_aside
from telemetry.scores.score import Score

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """A backend for scores. Its methods never raise."""

    def send(self, score: Score) -> Response:
        """Create the score, or replace the one with its id; 404 means that the trace or run is not known yet."""
        ...

    def delete(self, score: Score) -> Response:
        """Delete the score with this id; 404 means that there is none."""
        ...

    def read(self, score: Score) -> Response:
        """Look for the score with this id: 200 if it exists, 404 if not, 501 if that cannot be determined."""
        ...

    def close(self) -> None:
        """Close the connections."""


BATCH = 100
# How often to look for scores that other processes have left.
IDLE_S = 5.0
# How long to wait while another process sends.
YIELD_S = 0.05
# After this many scores with a 500 the backend counts as down.
MAX_FAILED = 3
# For this time a backend may still have a score or its run in a queue, and answer 404.
SETTLED_S = 30.0
# A deletion may wait in a queue of the backend: it is repeated after this time if the score still exists.
DELETE_AGAIN_S = 180.0
# How long to wait before checking again whether the score is gone; doubled each time up to the maximum.
FIRST_LOOK_S = 1.0
MAX_LOOK_S = 30.0
# How long a deleted score is remembered.
REMEMBER_S = 7 * 86_400.0

_NAMESPACE = UUID("7f1f6a52-6a0c-5d0b-8d33-0f7f3f1f5a11")

# Autoincrement: a number is never reused, so that a response to an old value cannot be taken for one to the new.
_STATEMENTS = """
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY AUTOINCREMENT, score_id TEXT NOT NULL UNIQUE, at REAL NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS refused (
    number INTEGER PRIMARY KEY, score_id TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL, body TEXT NOT NULL
);
-- How often a score was deleted and created again. Its id is a new one each time, so that a deletion that the backend
-- executes late cannot affect the later score.
CREATE TABLE IF NOT EXISTS generation (
    score_id TEXT PRIMARY KEY, number INTEGER NOT NULL, withdrawn INTEGER NOT NULL, at REAL NOT NULL
);
"""
_SCHEMA = Schema(
    1,
    _STATEMENTS,
    {
        "waiting": ["number", "score_id", "at", "body"],
        "refused": ["number", "score_id", "at", "reason", "body"],
        "generation": ["score_id", "number", "withdrawn", "at"],
    },
)


class Row(NamedTuple):
    """One waiting score, and when it was created."""

    number: int
    score_id: str
    at: float
    body: str


class Stored(NamedTuple):
    """A stored score: the number of its row, and its id at the backend."""

    number: int
    score_id: str


class Waiting(NamedTuple):
    """The content of a file: waiting scores, the age of the oldest in seconds, and permanently rejected ones."""

    rows: int
    oldest_s: float
    refused: int


class _Stores(WeakSet["ScoreStore"]):
    """The stores of this process."""


class ScoreStore:
    """The scores for one backend; in memory without a path. Safe to use from any thread and any process."""

    def __init__(self, path: Path | None, *, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._lock = threading.Lock()
        self._memory = None if path else connect(None, _SCHEMA)
        if path:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pipeline.shared(_Stores).add(self)
        watch_forks(self)

    def put(self, score_id: str, body: str, *, withdraws: bool = False) -> Stored:
        """Store a score in place of an earlier one; with `withdraws`, its deletion.

        A score that is created again after that gets a new id at the backend.
        """
        now = time.time()
        with self._open() as db, db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM generation WHERE withdrawn AND at < ?", (now - REMEMBER_S,))
            found = db.execute("SELECT number, withdrawn FROM generation WHERE score_id = ?", (score_id,)).fetchone()
            number, withdrawn = found or (0, False)
            if withdraws or withdrawn:
                number += withdrawn and not withdraws
                db.execute("INSERT OR REPLACE INTO generation VALUES (?,?,?,?)", (score_id, number, withdraws, now))
            generation_id = str(uuid5(_NAMESPACE, f"{score_id} {number}")) if number else score_id
            put = db.execute(
                "INSERT OR REPLACE INTO waiting (score_id, at, body) VALUES (?, ?, ?)", (generation_id, now, body)
            )
            return Stored(put.lastrowid or 0, generation_id)

    def take(self, max_rows: int, *, after: int = 0) -> list[Row]:
        """Return the oldest rows after the one with this number."""
        with self._open() as db:
            found = db.execute("SELECT * FROM waiting WHERE number > ? ORDER BY number LIMIT ?", (after, max_rows))
            return [Row._make(row) for row in found]

    def mark_accepted(self, row: Row) -> None:
        """Remove the row, which the backend has accepted. A newer value of the same score stays."""
        with self._open() as db:
            db.execute("DELETE FROM waiting WHERE number = ?", (row.number,))

    def mark_refused(self, row: Row, reason: str) -> None:
        """Set the row aside, because the backend will never accept it."""
        with self._open() as db, db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?, ?)", (*row[:3], reason, row.body))
            db.execute("DELETE FROM waiting WHERE number = ?", (row.number,))

    def status(self, number: int) -> str:
        """Return the status of the row with this number: `queued`, `sent`, or `skipped: …` with the reason."""
        with self._open() as db:
            if db.execute("SELECT 1 FROM waiting WHERE number = ?", (number,)).fetchone():
                return "queued"
            refused = db.execute("SELECT reason FROM refused WHERE number = ?", (number,)).fetchone()
        return f"skipped: it was refused: {refused[0]}" if refused else "sent"

    def waiting(self) -> Waiting:
        """Return what is waiting."""
        with self._open() as db:
            rows, oldest = db.execute("SELECT count(*), min(at) FROM waiting").fetchone()
            refused = db.execute("SELECT count(*) FROM refused").fetchone()[0]
        return Waiting(rows, seconds_since(oldest), refused)

    def replace_unreadable(self) -> None:
        """Set the file aside; a new one is created at the next use."""
        if self.path:
            with self._lock:
                set_aside(self.path)

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Yield whether this process may send now: only one of those that share the file does."""
        if self.path is None or fcntl is None:
            yield True
            return
        try:
            descriptor = open_locked(self.path.with_suffix(".lock"))
        except LockedError:
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)

    def before_fork(self) -> None:
        """Wait until no connection is open: SQLite must not carry one over a fork."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Open connections again."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Open connections again: the file is shared."""
        self._lock.release()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # One connection for each use: scores are rare, and no connection is open across a fork.
        with self._lock:
            if self._memory:
                yield self._memory
                return
            assert self.path  # noqa: S101 - it is one or the other
            try:
                db = connect(self.path, _SCHEMA, fsync=self._fsync)
            except sqlite3.DatabaseError as error:
                if is_transient(error):
                    raise
                set_aside(self.path)
                db = connect(self.path, _SCHEMA, fsync=self._fsync)
            with closing(db):
                yield db


@dataclass
class _Deletion:
    """The state of a deletion, until the score is gone."""

    seen: bool = False
    sent_at: float | None = None
    looks: int = 0
    next_look: float = 0.0


class ScoreBatches(Pausable):
    """Sends the scores of one store in the order of their creation, one request per score."""

    def __init__(self, store: ScoreStore, backend: Backend, state: BackendState) -> None:
        super().__init__()
        self.store = store
        self.is_empty = False
        self.waiting = store.waiting()
        self._backend = backend
        self._state = state
        self._after = 0
        self._deletions: dict[int, _Deletion] = {}

    def send_next(self) -> float | None:
        """Send the oldest rows; return for how many seconds to send nothing, None if no rows have to be sent now."""
        if self.is_paused:
            return None
        with self.store.exclusive() as alone:
            # Set before the rows are read: whoever adds one later resets it.
            self.is_empty = True
            pause = self._send_rows() if alone else YIELD_S
        self.waiting = self.store.waiting()
        return pause

    def close(self) -> None:
        """Close the connections to the backend."""
        self._backend.close()

    def replace_unreadable(self) -> None:
        """Set the file aside."""
        self.store.replace_unreadable()

    def _send_rows(self) -> float | None:
        rows, failed = self.store.take(BATCH, after=self._after), 0
        # Pending deletions do not block the rows behind them.
        self._after = rows[-1].number if len(rows) == BATCH else 0
        for row in rows:
            try:
                score = Score.model_validate_json(row.body).model_copy(update={"score_id": row.score_id})
            except ValueError:
                self.store.mark_refused(row, "its row on disk is damaged")
                continue
            response = self._backend.send(score) if score.value is not None else self._take_back(row, score)
            if response is None:
                continue
            self._state.record_response(response)
            if response.accepted or response.is_payload_error or response.status == 404:
                self._settle(row, score, response)
                continue
            # The response does not concern this score, which may be accepted later.
            failed += 1
            if failed >= MAX_FAILED or response.status != 500:
                self._after = 0
                return self._state.back_off(response)
        self._state.failures = 0
        if not self._after:
            return None
        self.is_empty = False
        return 0.0

    def _take_back(self, row: Row, score: Score) -> Response | None:
        """Delete the score, and return the response once it is gone; None until then.

        A backend may execute both the score and its deletion late, so that neither the acceptance of the deletion nor
        a single check is enough.
        """
        now = time.monotonic()
        deletion = self._deletions.setdefault(row.number, _Deletion())
        if now < deletion.next_look:
            return None
        found = self._backend.read(score)
        if found.status not in (200, 404, 501):
            return found
        again = deletion.sent_at is None or now - deletion.sent_at > DELETE_AGAIN_S
        if again or (found.accepted and not deletion.seen):
            deletion.seen = deletion.seen or found.accepted
            response = self._backend.delete(score)
            if found.status == 501 or not (response.accepted or response.status == 404):
                return response
            if response.accepted:
                deletion.sent_at = now
            found = self._backend.read(score)
        if found.status == 404 and time.time() - row.at >= SETTLED_S:
            return Response(200)
        deletion.next_look = now + min(FIRST_LOOK_S * 2**deletion.looks, MAX_LOOK_S)
        deletion.looks = min(deletion.looks + 1, 16)
        return None

    def _settle(self, row: Row, score: Score, response: Response) -> None:
        unknown = response.status == 404
        if unknown and time.time() - row.at < SETTLED_S:
            return
        if response.accepted or (unknown and score.value is None):
            self.store.mark_accepted(row)
            self._state.accepted += unknown
        else:
            self.store.mark_refused(row, str(response))
        self._deletions.pop(row.number, None)


def drop_foreign(folder: Path, oldest: float) -> int:
    """Delete the stores of backends that this process does not use, last written before this time.

    Return the number of scores in them. No process sends them once the account has changed, and they contain comments.
    """
    ours = {store.path for store in tuple(pipeline.shared(_Stores))}
    dropped = 0
    for path in [path for path in folder.glob("scores-*.sqlite") if path not in ours and last_written(path) < oldest]:
        store = ScoreStore(path)
        with store.exclusive() as alone:
            if not alone:
                continue
            rows = store.waiting().rows
            for end in ("-wal", "-shm", ""):
                Path(f"{path}{end}").unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
        logger.warning(
            "%s is for another backend and older than TELEMETRY_SPOOL_MAX_AGE: deleted, with %d scores",
            path.stem,
            rows,
        )
        dropped += rows
    return dropped
