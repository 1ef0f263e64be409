"""The scores that wait for one place, on disk: of each score only the last word.

All processes that score for the same place share one file, unlike the spools of spans: that way a change of mind in one
process cannot be overtaken by the older word that another one still holds.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

from telemetry.delivery.spool_folder import written

try:
    import fcntl
except ImportError:  # no file locks: one process at a time is the operator's to see to
    fcntl = None

logger = logging.getLogger(__name__)

# Autoincrement: a number never comes twice, so that an answer to an old word cannot be taken for one to the new.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY AUTOINCREMENT, score_id TEXT NOT NULL UNIQUE, at REAL NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS refused (
    number INTEGER PRIMARY KEY, score_id TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL, body TEXT NOT NULL
);
"""


class Row(NamedTuple):
    """One score on its way, and when it was given."""

    number: int
    score_id: str
    at: float
    body: str


class Box:
    """The rows for one place; in memory without a path. Safe to use from any thread and any process."""

    def __init__(self, path: Path | None, *, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._lock = threading.Lock()
        self._memory = None if path else _connect(":memory:", fsync=False)
        if path:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _register_at_fork()
        _boxes.add(self)

    def put(self, score_id: str, body: str) -> int:
        """Keep this word of a score in the place of any earlier one, and return its number."""
        with self._open() as db:
            put = db.execute(
                "INSERT OR REPLACE INTO waiting (score_id, at, body) VALUES (?, ?, ?)", (score_id, time.time(), body)
            )
            return put.lastrowid or 0

    def rows(self, most: int) -> list[Row]:
        """Return the rows that came first."""
        with self._open() as db:
            return [Row._make(row) for row in db.execute("SELECT * FROM waiting ORDER BY number LIMIT ?", (most,))]

    def accept(self, row: Row) -> None:
        """Forget the row: its place has it. A newer word on the same score stays."""
        with self._open() as db:
            db.execute("DELETE FROM waiting WHERE number = ?", (row.number,))

    def refuse(self, row: Row, reason: str) -> None:
        """Put the row aside: its place will never take it."""
        with self._open() as db, _transaction(db):
            db.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?, ?)", (*row[:3], reason, row.body))
            db.execute("DELETE FROM waiting WHERE number = ?", (row.number,))

    def waits(self, number: int) -> bool:
        """Return whether the row with this number is still on its way."""
        with self._open() as db:
            return db.execute("SELECT 1 FROM waiting WHERE number = ?", (number,)).fetchone() is not None

    def refusal(self, number: int) -> str | None:
        """Return why the row with this number was refused, None if it was not."""
        with self._open() as db:
            found = db.execute("SELECT reason FROM refused WHERE number = ?", (number,)).fetchone()
        return found[0] if found else None

    def figures(self) -> tuple[int, float, int]:
        """Return how many rows wait, for how many seconds the first one has, and how many were refused."""
        with self._open() as db:
            waiting, oldest = db.execute("SELECT count(*), min(at) FROM waiting").fetchone()
            refused = db.execute("SELECT count(*) FROM refused").fetchone()[0]
        return waiting, max(0.0, time.time() - oldest) if oldest else 0.0, refused

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Tell whether this process may deliver now: one at a time does, whoever else shares the file."""
        if self.path is None or fcntl is None:
            yield True
            return
        with os.fdopen(os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def before_fork(self) -> None:
        """Wait until no connection is open: SQLite must not carry one over a fork."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Open connections again, on either side."""
        self._lock.release()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A connection for each use: scores are few, and none is carried over a fork.
        with self._lock:
            if self._memory:
                yield self._memory
                return
            assert self.path  # noqa: S101 - it is one or the other
            with closing(self._readable(self.path)) as db:
                yield db

    def _readable(self, path: Path) -> sqlite3.Connection:
        try:
            return _connect(path, fsync=self._fsync)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            logger.exception("the scores in %s cannot be read: it is set aside as %s.corrupt", path, path.stem)
            for end in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{path}{end}").rename(f"{path.with_suffix('.corrupt')}{end}")
            return _connect(path, fsync=self._fsync)


def drop_foreign(folder: Path, oldest: float) -> int:
    """Remove the boxes of places that this process has none for, last written before this time.

    Returns how many scores went. Nobody delivers them once the account has changed, and what people said is in them.
    """
    ours = {box.path for box in tuple(_boxes)}
    boxes = [path for path in folder.glob("scores-*.sqlite") if path not in ours]
    return sum(_drop(path) for path in boxes if written(path) < oldest)


def _drop(path: Path) -> int:
    box = Box(path)
    with box.alone() as alone:
        if not alone:
            return 0
        waiting, *_ = box.figures()
        for end in ("-wal", "-shm", ""):
            Path(f"{path}{end}").unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
    logger.warning(
        "%s is for another place and beyond TELEMETRY_SPOOL_MAX_AGE: it is removed, with %d scores", path.stem, waiting
    )
    return waiting


def _connect(path: Path | str, *, fsync: bool) -> sqlite3.Connection:
    if isinstance(path, Path) and not path.exists():
        # SQLite would make it readable for others; what people wrote is in it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    with db:
        db.execute("BEGIN IMMEDIATE")
        yield


_boxes: "WeakSet[Box]" = WeakSet()


@cache
def _register_at_fork() -> None:
    held: list[Box] = []

    def hold() -> None:
        held.extend(_boxes)
        for box in held:
            box.before_fork()

    def let_go() -> None:
        while held:
            held.pop().after_fork()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=let_go)
