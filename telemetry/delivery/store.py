"""Store finished spans on disk until the backend has accepted them. Each process has its own SQLite file."""

import logging
import math
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from telemetry.delivery.lock import MemoryMarks, SpoolLock

logger = logging.getLogger(__name__)

# The kinds of rows: spans, and files that are sent beside them. The marks in the lock count only spans.
SPAN, MEDIA = "span", "media"
# Dropping excess rows frees a little more than necessary, so that not every commit has to drop some.
TRIM_TO = 0.95
# How long to wait for a locked file of another process.
ADOPT_TIMEOUT_S = 0.1

# Files of releases before 2 have version 0. Version 1 had no held rows.
_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS waiting_media ON waiting (seq) WHERE kind = 'media';
CREATE TABLE IF NOT EXISTS dead (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL
);
-- Rows of traces that are not kept, or not yet.
CREATE TABLE IF NOT EXISTS held (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, trace TEXT NOT NULL, error INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS held_trace ON held (trace, error);
CREATE TABLE IF NOT EXISTS verdict (trace TEXT PRIMARY KEY, kept INTEGER NOT NULL, at REAL NOT NULL);
"""

_COLUMNS = {
    "waiting": ["seq", "kind", "at", "body"],
    "dead": ["id", "kind", "at", "reason", "body"],
    "held": ["seq", "kind", "at", "trace", "error", "body"],
    "verdict": ["trace", "kept", "at"],
}
_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
}


class UnusableError(Exception):
    """The file cannot be used, and is left in place."""


class NewerSchemaError(sqlite3.Error):
    """The file was written by a later release."""


class Schema(NamedTuple):
    """The tables of a file: their version, the statements that create them, and their columns."""

    version: int
    statements: str
    columns: Mapping[str, list[str]]


SPOOL = Schema(_VERSION, _SCHEMA, _COLUMNS)


class Row(NamedTuple):
    """A waiting row: an encoded span, and when it ended."""

    seq: int
    kind: str
    at: float
    body: bytes


class DeadLetter(NamedTuple):
    """A span that the backend has rejected permanently, and why."""

    id: str
    kind: str
    at: float
    reason: str
    body: bytes


class Waiting(NamedTuple):
    """The content of a file: waiting spans, all bytes, the age of the oldest row in seconds, dead letters, files."""

    rows: int = 0
    size: int = 0
    oldest_s: float = 0.0
    dead: int = 0
    media: int = 0


@dataclass(frozen=True)
class RowsOf:
    """The rows of one kind in a store."""

    store: "SpoolStore"
    kind: str

    @property
    def is_empty(self) -> bool:
        """Whether none are waiting."""
        return self.store.rows_of(self.kind) <= 0


class SpoolStore:
    """The spans of one process, in the order in which they ended, and the files that are sent beside them.

    One thread appends, and one of each kind sends; any thread may read the figures.
    """

    def __init__(self, lock: SpoolLock | MemoryMarks, *, fsync: bool = False, timeout_s: float = 10.0) -> None:
        self.lock = lock
        self._path = lock.database if isinstance(lock, SpoolLock) else None
        self._fsync = fsync
        self._timeout_s = timeout_s
        # In memory there is only one connection, and both locks are the same.
        self._writing = threading.RLock()
        self._reading = threading.RLock() if self._path else self._writing
        self._connect()
        self._repair_rows()
        self._next = self._write.execute("SELECT ifnull(max(seq), 0) + 1 FROM waiting").fetchone()[0]
        self._next = max(self._next, lock.accepted + 1)
        self._figures = threading.Lock()
        # Rows that were removed, but could not be deleted on a full disk.
        self._gone: dict[str, set[int]] = {SPAN: set(), MEDIA: set()}
        # Rows and their bytes, by kind.
        self._waiting = {SPAN: (0, 0), MEDIA: (0, 0)}
        self._count_waiting("seq > ? OR kind <> 'span'", lock.accepted)

    @classmethod
    def create(cls, directory: Path, destination: str, *, fsync: bool = False) -> Self:
        """Return a new file of this process for this destination."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{destination}-{os.getpid()}-{os.urandom(4).hex()}.lock"
        lock = SpoolLock(directory / name)
        try:
            return cls(lock, fsync=fsync)
        except BaseException:
            lock.release()
            lock.path.unlink(missing_ok=True)
            raise

    @classmethod
    def memory(cls) -> Self:
        """Return a store in memory, which ends with the process."""
        return cls(MemoryMarks())

    @property
    def on_disk(self) -> bool:
        """Whether the store outlives the process."""
        return self._path is not None

    @property
    def name(self) -> str:
        """The name of the file, which contains the destination and the owner's process id."""
        return self._path.stem if self._path else "memory"

    def append(self, kind: str, records: Sequence[tuple[float, bytes]]) -> None:
        """Append records, each with its time, in one transaction.

        One statement writes all of them, so that it releases the GIL only once.
        """
        places = ",".join(["(?,?,?,?)"] * len(records))
        with self._writing:
            values = [field for seq, record in enumerate(records, self._next) for field in (seq, kind, *record)]
            self._write.execute(f"INSERT INTO waiting VALUES {places}", values)  # noqa: S608 - question marks only
            self._next += len(records)
            self.lock.committed += len(records) if kind == SPAN else 0
        self._count(kind, len(records), sum(len(body) for _, body in records))

    def hold(self, kind: str, records: Sequence[tuple[float, str, bool, bytes]]) -> None:
        """Commit records, each with its time, its trace and whether it has an error, without sending them yet."""
        places = ",".join(["(?,?,?,?,?)"] * len(records))
        with self._writing:
            values = [field for record in records for field in (kind, *record)]
            self._write.execute(f"INSERT INTO held (kind, at, trace, error, body) VALUES {places}", values)  # noqa: S608 - question marks only
            self.lock.committed += len(records) if kind == SPAN else 0

    def record_decision(self, trace: str, kept: bool, at: float) -> None:
        """Record whether a trace is kept; if so, its held rows are appended to the waiting rows."""
        with self._writing, self._write:
            self._write.execute("BEGIN IMMEDIATE")
            self._write.execute("INSERT OR REPLACE INTO verdict VALUES (?,?,?)", (trace, kept, at))
            if not kept:
                return
            before = self._next
            rows = self._write.execute("SELECT count(*) FROM held WHERE trace = ?", (trace,)).fetchone()[0]
            self._write.execute(
                "INSERT INTO waiting SELECT ? + row_number() OVER (ORDER BY seq), kind, at, body FROM held"
                " WHERE trace = ?",
                (self._next - 1, trace),
            )
            self._write.execute("DELETE FROM held WHERE trace = ?", (trace,))
            self._next += rows
            self._count_waiting("seq >= ?", before)

    def holds_error(self, trace: str) -> bool:
        """Return whether a held row of this trace has an error."""
        with self._writing:
            found = self._write.execute("SELECT 1 FROM held WHERE trace = ? AND error LIMIT 1", (trace,)).fetchone()
        return found is not None

    def holds(self, trace: str) -> bool:
        """Return whether a row of this trace is held."""
        with self._writing:
            found = self._write.execute("SELECT 1 FROM held WHERE trace = ? LIMIT 1", (trace,)).fetchone()
        return found is not None

    def undecided(self, before: float) -> list[str]:
        """Return the traces without a decision whose held rows began before this time."""
        with self._writing:
            found = self._write.execute(
                "SELECT trace FROM held WHERE trace NOT IN (SELECT trace FROM verdict)"
                " GROUP BY trace HAVING min(at) < ? ORDER BY min(seq)",
                (before,),
            ).fetchall()
        return [trace for (trace,) in found]

    def decisions(self) -> dict[str, bool]:
        """Return the decisions about traces."""
        with self._writing:
            return {trace: bool(kept) for trace, kept in self._write.execute("SELECT trace, kept FROM verdict")}

    def drop_unkept(self, before: float, forget: float) -> int:
        """Drop the held rows of traces that were dropped before this time; return their number.

        Decisions from before the time `forget` are deleted as well.
        """
        with self._writing:
            dropped = self._write.execute(
                "DELETE FROM held WHERE trace IN (SELECT trace FROM verdict WHERE NOT kept AND at < ?)", (before,)
            ).rowcount
            self._write.execute("DELETE FROM verdict WHERE at < ? AND trace NOT IN (SELECT trace FROM held)", (forget,))
        return dropped

    @property
    def held(self) -> tuple[int, int]:
        """How many rows are held, and their bytes."""
        with self._writing:
            return self._write.execute("SELECT count(*), ifnull(sum(length(body)), 0) FROM held").fetchone()

    def take(self, kind: str, max_bytes: int, max_rows: int, *, after: int = 0, skip: int = 0) -> list[Row]:
        """Return the first rows that fit, at least one if any are waiting."""
        with self._reading:
            if self._is_closed:
                return []
            gone = ",".join(map(str, self._gone[kind]))
            cursor = self._read.execute(
                # The kind is in the text, so that the index of files is used.
                f"SELECT seq, kind, at, body FROM waiting WHERE seq > ? AND kind = '{kind}' AND seq NOT IN ({gone})"  # noqa: S608 - ours
                " ORDER BY seq LIMIT ? OFFSET ?",
                (max(after, self.lock.accepted if kind == SPAN else 0), max_rows, skip),
            )
            rows: list[Row] = []
            size = 0
            with closing(cursor):
                for row in map(Row._make, cursor):
                    size += len(row.body)
                    if rows and size > max_bytes:
                        break
                    rows.append(row)
            return rows

    def mark_accepted(self, rows: Sequence[Row]) -> None:
        """Remove the first rows of their kind, which the backend has accepted.

        The mark is set before anything is written, so that they are not sent again if the disk is full or the process
        dies now.
        """
        with self._writing:
            # Inside: a file whose last rows are counted as accepted is closed if the disk is full.
            if self._is_closed:
                return
            if rows[-1].kind == SPAN:
                self.lock.accepted = rows[-1].seq
                self._gone[SPAN] = {seq for seq in self._gone[SPAN] if seq > rows[-1].seq}
            self._count(rows[-1].kind, -len(rows), -sum(len(row.body) for row in rows))
            with suppress(sqlite3.OperationalError):
                self._write.execute("DELETE FROM waiting WHERE seq <= ? AND kind = ?", (rows[-1].seq, rows[-1].kind))

    def remove(self, row: Row) -> None:
        """Remove one row at any position; on a full disk, as soon as the rows before it are removed too."""
        with self._writing:
            if self._is_closed:
                return
            self._gone[row.kind].add(row.seq)
            self._count(row.kind, -1, -len(row.body))
            with suppress(sqlite3.OperationalError):
                self._write.execute("DELETE FROM waiting WHERE seq = ?", (row.seq,))
                self._gone[row.kind].remove(row.seq)

    def replace_with_stub(self, row: Row, reason: str, stub: bytes | None) -> None:
        """Move the row to the dead letters, and replace it by the stub."""
        letter = DeadLetter(f"{self.name}-{row.seq}", row.kind, row.at, reason, row.body)
        with self._writing, self._write:
            self._write.execute("BEGIN IMMEDIATE")
            self._write.execute("INSERT OR IGNORE INTO dead VALUES (?,?,?,?,?)", letter)
            self._write.execute("UPDATE waiting SET body = ? WHERE seq = ?", (stub or b"", row.seq))
            self._write.execute("DELETE FROM waiting WHERE seq = ? AND body = x''", (row.seq,))
        self._count(row.kind, 0 if stub else -1, len(stub or b"") - len(row.body))

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        with self._reading:
            return [DeadLetter._make(row) for row in self._read.execute("SELECT * FROM dead ORDER BY at, rowid")]

    def add_dead_letters(self, letters: Iterable[DeadLetter]) -> None:
        """Add the dead letters of another file; existing ones are not changed."""
        with self._writing:
            self._write.executemany("INSERT OR IGNORE INTO dead VALUES (?,?,?,?,?)", letters)

    def remove_dead_letters(self, letters: Iterable[DeadLetter]) -> None:
        """Remove these dead letters."""
        with self._writing:
            self._write.executemany("DELETE FROM dead WHERE id = ?", [(letter.id,) for letter in letters])

    def drop_excess(self, max_bytes: int) -> int:
        """Drop the oldest rows until the rest fits; return their number."""
        with self._writing:
            if self.size <= max_bytes:
                return 0
            excess = self.size - int(max_bytes * TRIM_TO)
            cursor = self._write.execute(
                "SELECT seq, length(body) FROM waiting WHERE (seq > ? OR kind <> 'span') ORDER BY seq",
                (self.lock.accepted,),
            )
            last = 0
            with closing(cursor):
                for seq, size in cursor:
                    last, excess = seq, excess - size
                    if excess <= 0:
                        break
            return self._drop("seq <= ?", last)

    def drop_excess_media(self, max_bytes: int) -> int:
        """Drop the oldest files until the rest fits; return their number."""
        with self._writing:
            excess = self.size_of(MEDIA) - max_bytes
            if excess <= 0:
                return 0
            last = 0
            found = self._write.execute("SELECT seq, length(body) FROM waiting WHERE kind = 'media' ORDER BY seq")
            with closing(found):
                for seq, size in found:
                    last, excess = seq, excess - size
                    if excess <= 0:
                        break
            return self._drop("kind = 'media' AND seq <= ?", last)

    def drop_old(self, oldest: float) -> int:
        """Drop rows and dead letters from before this time; return the number of rows."""
        with self._writing:
            self._write.execute("DELETE FROM dead WHERE at < ?", (oldest,))
            first = self._write.execute("SELECT at FROM waiting ORDER BY seq LIMIT 1").fetchone()
            return self._drop("at < ?", oldest) if first and first[0] < oldest else 0

    def _drop(self, where: str, limit: float) -> int:
        dropped = self._count_waiting(f"{where} AND (seq > {self.lock.accepted} OR kind <> 'span')", limit, sign=-1)
        self._write.execute(f"DELETE FROM waiting WHERE {where}", (limit,))  # noqa: S608 - ours
        return dropped

    def _count_waiting(self, where: str, limit: float, sign: int = 1) -> int:
        """Add the rows that match, or subtract them; return their number."""
        total = 0
        for kind, rows, size in self._write.execute(
            f"SELECT kind, count(*), sum(length(body)) FROM waiting WHERE {where} GROUP BY kind",  # noqa: S608 - ours
            (limit,),
        ).fetchall():
            self._count(kind, sign * rows, sign * size)
            total += rows
        return total

    @property
    def rows(self) -> int:
        """How many rows are waiting."""
        return sum(rows for rows, _ in self._waiting.values())

    @property
    def size(self) -> int:
        """The bytes of the waiting rows."""
        return sum(size for _, size in self._waiting.values())

    def rows_of(self, kind: str) -> int:
        """Return how many rows of a kind are waiting."""
        return self._waiting[kind][0]

    def size_of(self, kind: str) -> int:
        """Return the bytes of the waiting rows of a kind."""
        return self._waiting[kind][1]

    def waiting(self) -> Waiting:
        """Return what is waiting."""
        with self._reading:
            oldest, dead = self._read.execute(
                "SELECT (SELECT at FROM waiting WHERE (seq > ? OR kind <> 'span') ORDER BY seq LIMIT 1),"
                " (SELECT count(*) FROM dead)",
                (self.lock.accepted,),
            ).fetchone()
        return Waiting(self.rows_of(SPAN), self.size, seconds_since(oldest), dead, self.rows_of(MEDIA))

    @property
    def is_empty(self) -> bool:
        """Whether no rows are waiting; dead letters do not count."""
        return self.rows <= 0

    def close(self) -> None:
        """Close the file; delete it if it is empty, otherwise leave it for a process that takes it over."""
        with self._writing, self._reading:
            empty = self.is_empty and not self.dead_letters() and self.held == (0, 0)
            self._disconnect()
        if isinstance(self.lock, SpoolLock):
            if empty:
                self.lock.remove_files()
            self.lock.release()

    def quarantine(self) -> None:
        """Rename an unreadable file, and close it."""
        with self._writing, self._reading:
            self._disconnect()
        if isinstance(self.lock, SpoolLock):
            quarantine(self.lock)

    def before_fork(self) -> None:
        """Close the connections, which SQLite must not carry over a fork."""
        self._writing.acquire()
        self._reading.acquire()
        if self._path:
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Open them again."""
        if self._path:
            self._connect()
        self._reading.release()
        self._writing.release()

    def after_fork_in_child(self) -> None:
        """Leave the file to the parent."""
        if isinstance(self.lock, SpoolLock):
            self.lock.release()

    def _repair_rows(self) -> None:
        """Move rows whose body is not bytes to the dead letters: they cannot be part of a request."""
        damaged = 0
        for table in ("waiting", "held"):
            found = self._write.execute(f"SELECT seq, body FROM {table} WHERE typeof(body) <> 'blob'").fetchall()  # noqa: S608 - ours
            for seq, body in found:
                letter = DeadLetter(
                    f"{self.name}-{table}-{seq}",
                    SPAN,
                    time.time(),
                    "its row in the spool is damaged",
                    str(body).encode(),
                )
                self._write.execute("INSERT OR IGNORE INTO dead VALUES (?,?,?,?,?)", letter)
                self._write.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))  # noqa: S608 - ours
            damaged += len(found)
            self._write.execute(
                f"UPDATE {table} SET at = ? WHERE typeof(at) NOT IN ('real', 'integer')",  # noqa: S608 - ours
                (time.time(),),
            )
        if damaged:
            logger.error("%d rows of the spool file %s are damaged: they become dead letters", damaged, self.name)

    def _connect(self) -> None:
        self._is_closed = False
        self._write = connect(self._path, SPOOL, fsync=self._fsync, timeout_s=self._timeout_s)
        self._read = connect(self._path, SPOOL, timeout_s=self._timeout_s) if self._path else self._write

    def _disconnect(self) -> None:
        self._is_closed = True
        if self._read is not self._write:
            self._read.close()
        self._write.close()

    def _count(self, kind: str, rows: int, size: int) -> None:
        with self._figures:
            before = self._waiting.get(kind, (0, 0))
            self._waiting[kind] = before[0] + rows, before[1] + size


def adopt(lock: SpoolLock, *, fsync: bool = False) -> SpoolStore | None:
    """Return the store of the file with this lock; None if it cannot be read, and was set aside.

    Raises `UnusableError` for a file that is left in place, for a later attempt or for another release.
    """
    try:
        if os.path.lexists(lock.database) and not stat.S_ISREG(lock.database.lstat().st_mode):
            raise UnusableError("it is not a regular file")  # noqa: TRY301 - the lock is released below
        if lock.is_new and lock.database.exists():
            _check_unused(lock.database)
        return SpoolStore(lock, fsync=fsync, timeout_s=ADOPT_TIMEOUT_S)
    except (UnusableError, NewerSchemaError, OSError) as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with this file, the others are delivered
        if not is_transient(error):
            quarantine(lock)
            return None
        reason = str(error)
    if lock.is_new:
        lock.path.unlink(missing_ok=True)
    lock.release()
    raise UnusableError(reason)


def _check_unused(database: Path) -> None:
    """Raise if a living process has the file open, although its lock was removed."""
    with closing(sqlite3.connect(database, timeout=0)) as connection:
        # SQLite leaves WAL mode only if no other connection is open.
        connection.execute("PRAGMA journal_mode = DELETE")


def is_transient(error: BaseException) -> bool:
    """Return whether the operation may succeed later with this file, as after a full disk or with a busy file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _TRANSIENT


def quarantine(lock: SpoolLock) -> None:
    """Rename the spool file to .corrupt, for a person to inspect, and release its lock."""
    set_aside(lock.database)
    lock.remove_files()
    lock.release()


def set_aside(database: Path) -> None:
    """Rename a file that SQLite cannot read to .corrupt."""
    logger.error("the spool file %s cannot be read: it is set aside as %s.corrupt", database, database.stem)
    for end in ("", "-wal", "-shm"):
        with suppress(OSError):
            Path(f"{database}{end}").rename(f"{database.with_suffix('.corrupt')}{end}")


def seconds_since(at: float | None) -> float:
    """Return the seconds since then, 0 for None."""
    return max(0.0, time.time() - at) if at is not None else 0.0


def last_written(database: Path) -> float:
    """Return when a file was last written; no row is newer. A missing file counts as being created now."""
    times = [path.stat().st_mtime for path in (database, Path(f"{database}-wal")) if path.exists()]
    return max(times, default=math.inf)


def connect(path: Path | None, schema: Schema, *, fsync: bool = False, timeout_s: float = 10.0) -> sqlite3.Connection:
    """Return a connection to a file with this schema, created if missing; without a path, to memory.

    A file of an earlier release is migrated. Raises `NewerSchemaError` for one of a later release.
    """
    if path and not path.exists():
        # SQLite would make the file readable for others; it contains conversations.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path or ":memory:", timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.version:
            raise NewerSchemaError(f"{path} was written by a later release, which has to send it")  # noqa: TRY301
        made = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
        # A file of an earlier release, or a damaged one, may lack a table.
        connection.executescript(schema.statements)
        for table, columns in schema.columns.items():
            found = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
            if found != columns:
                raise sqlite3.DatabaseError(f"{path} has the columns {found} in {table}")  # noqa: TRY301
        if version < schema.version:
            if made:
                logger.info("%s was written by an earlier release: its schema has been upgraded", path)
            connection.execute(f"PRAGMA user_version = {schema.version}")
    except BaseException:
        connection.close()
        raise
    return connection
