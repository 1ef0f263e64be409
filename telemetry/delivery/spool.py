"""Finished spans on disk until the backend has them: one SQLite file per process, adopted when its owner is dead."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, Self

from telemetry.delivery.claim import Claim, NoClaim

# The mark in the claim is about spans alone: the statements below say so in plain text.
SPAN = "span"
# A trim frees a little more than it must, so that not every commit trims.
TRIM_TO = 0.95

_SCHEMA = """
CREATE TABLE waiting (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE dead (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL
);
-- Rows of traces that are not kept, or not yet.
CREATE TABLE held (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, trace TEXT NOT NULL, error INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX held_trace ON held (trace, error);
CREATE TABLE verdict (trace TEXT PRIMARY KEY, kept INTEGER NOT NULL, at REAL NOT NULL);
"""


class Row(NamedTuple):
    """One thing on its way to the backend: a span, encoded, and when it ended."""

    seq: int
    kind: str
    at: float
    body: bytes


class DeadLetter(NamedTuple):
    """What the backend refused for good, and why."""

    id: str
    kind: str
    at: float
    reason: str
    body: bytes


class Waiting(NamedTuple):
    """What waits in a file: rows, their bytes, the age of the oldest in seconds, dead letters."""

    rows: int = 0
    size: int = 0
    oldest_s: float = 0.0
    dead: int = 0


class Spool:
    """The rows of one process, in the order in which they came.

    One thread appends, one delivers; any may ask for figures.
    """

    def __init__(self, claim: Claim | NoClaim, *, fsync: bool = False) -> None:
        self.claim = claim
        self._path = claim.path.with_suffix(".db") if isinstance(claim, Claim) else None
        self._fsync = fsync
        # In memory there is one connection, and both locks are one.
        self._writing = threading.RLock()
        self._reading = threading.RLock() if self._path else self._writing
        self._connect()
        self._next = self._write.execute("SELECT ifnull(max(seq), 0) + 1 FROM waiting").fetchone()[0]
        self._next = max(self._next, claim.accepted + 1)
        self._figures = threading.Lock()
        self._gone: list[int] = []
        self.rows, self.size = self._write.execute(
            "SELECT count(*), ifnull(sum(length(body)), 0) FROM waiting WHERE (seq > ? OR kind <> 'span')",
            (claim.accepted,),
        ).fetchone()

    @classmethod
    def create(cls, directory: Path, destination: str, *, fsync: bool = False) -> Self:
        """Return a new file of this process for what goes to this destination."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{destination}-{os.getpid()}-{os.urandom(4).hex()}.lock"
        claim = Claim(directory / name)
        try:
            return cls(claim, fsync=fsync)
        except BaseException:
            claim.give_up()
            claim.path.unlink(missing_ok=True)
            raise

    @classmethod
    def memory(cls) -> Self:
        """Return one that ends with the process."""
        return cls(NoClaim())

    @property
    def on_disk(self) -> bool:
        """Whether it outlives the process."""
        return self._path is not None

    @property
    def name(self) -> str:
        """What the file is called; the destination and the owner's process id are in it."""
        return self._path.stem if self._path else "memory"

    def append(self, kind: str, records: Sequence[tuple[float, bytes]]) -> None:
        """Commit records, each with its time, behind all that waits: all or none of them.

        One statement writes them all: it gives up the GIL once, however many there are.
        """
        places = ",".join(["(?,?,?,?)"] * len(records))
        with self._writing:
            values = [field for seq, record in enumerate(records, self._next) for field in (seq, kind, *record)]
            self._write.execute(f"INSERT INTO waiting VALUES {places}", values)  # noqa: S608 - question marks only
            self._next += len(records)
            self.claim.committed += len(records)
        self._count(len(records), sum(len(body) for _, body in records))

    def hold(self, kind: str, records: Sequence[tuple[float, str, bool, bytes]]) -> None:
        """Commit records, each with its time, its trace and whether it tells of an error, without sending them yet."""
        places = ",".join(["(?,?,?,?,?)"] * len(records))
        with self._writing:
            values = [field for record in records for field in (kind, *record)]
            self._write.execute(f"INSERT INTO held (kind, at, trace, error, body) VALUES {places}", values)  # noqa: S608 - question marks only
            self.claim.committed += len(records)

    def rule(self, trace: str, kept: bool, at: float) -> None:
        """Remember whether a trace is kept; the rows of one that is are sent from now on, behind all that waits."""
        with self._writing, self._write:
            self._write.execute("BEGIN IMMEDIATE")
            self._write.execute("INSERT OR REPLACE INTO verdict VALUES (?,?,?)", (trace, kept, at))
            if kept:
                self._release(trace)

    def _release(self, trace: str) -> None:
        rows, size = self._write.execute(
            "SELECT count(*), ifnull(sum(length(body)), 0) FROM held WHERE trace = ?", (trace,)
        ).fetchone()
        self._write.execute(
            "INSERT INTO waiting SELECT ? + row_number() OVER (ORDER BY seq), kind, at, body FROM held WHERE trace = ?",
            (self._next - 1, trace),
        )
        self._write.execute("DELETE FROM held WHERE trace = ?", (trace,))
        self._next += rows
        self._count(rows, size)

    def tells_of_error(self, trace: str) -> bool:
        """Whether a held row of this trace does."""
        with self._writing:
            found = self._write.execute("SELECT 1 FROM held WHERE trace = ? AND error LIMIT 1", (trace,)).fetchone()
        return found is not None

    def holds(self, trace: str) -> bool:
        """Whether a row of this trace is held."""
        with self._writing:
            found = self._write.execute("SELECT 1 FROM held WHERE trace = ? LIMIT 1", (trace,)).fetchone()
        return found is not None

    def undecided(self, before: float) -> list[str]:
        """Return the traces with held rows that began before this time and have no verdict."""
        with self._writing:
            found = self._write.execute(
                "SELECT trace FROM held WHERE trace NOT IN (SELECT trace FROM verdict)"
                " GROUP BY trace HAVING min(at) < ? ORDER BY min(seq)",
                (before,),
            ).fetchall()
        return [trace for (trace,) in found]

    def verdicts(self) -> dict[str, bool]:
        """Return what was decided about traces."""
        with self._writing:
            return {trace: bool(kept) for trace, kept in self._write.execute("SELECT trace, kept FROM verdict")}

    def let_go(self, before: float, forget: float) -> int:
        """Drop the held rows of traces that were not kept, decided before this time; returns how many.

        Verdicts from before the time to `forget` are gone as well.
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

    def take(self, kind: str, most_bytes: int, most_rows: int, *, after: int = 0, skip: int = 0) -> list[Row]:
        """Return the first rows that fit, at least one if any waits."""
        with self._reading:
            if self._closed:
                return []
            gone = ",".join(map(str, self._gone))
            cursor = self._read.execute(
                f"SELECT seq, kind, at, body FROM waiting WHERE seq > ? AND kind = ? AND seq NOT IN ({gone})"  # noqa: S608 - our own numbers
                " ORDER BY seq LIMIT ? OFFSET ?",
                (max(after, self.claim.accepted if kind == SPAN else 0), kind, most_rows, skip),
            )
            with closing(cursor):
                return list(_fitting(map(Row._make, cursor), most_bytes))

    def accept(self, rows: Sequence[Row]) -> None:
        """Forget the rows at the head of their kind: the backend has them.

        The mark is set before anything is written, so that they do not come back if the disk is full or the process
        dies now.
        """
        if self._closed:
            return
        if rows[-1].kind == SPAN:
            self.claim.accepted = rows[-1].seq
            self._gone = [seq for seq in self._gone if seq > rows[-1].seq]
        self._count(-len(rows), -sum(len(row.body) for row in rows))
        with self._writing, suppress(sqlite3.OperationalError):
            self._write.execute("DELETE FROM waiting WHERE seq <= ? AND kind = ?", (rows[-1].seq, rows[-1].kind))

    def remove(self, row: Row) -> None:
        """Forget one row wherever it stands; on a full disk until the rows before it are forgotten too."""
        self._gone.append(row.seq)
        self._count(-1, -len(row.body))
        with self._writing, suppress(sqlite3.OperationalError):
            self._write.execute("DELETE FROM waiting WHERE seq = ?", (row.seq,))
            self._gone.remove(row.seq)

    def bury(self, row: Row, reason: str, stub: bytes | None) -> None:
        """Put the row to the dead letters, and the stub in its place."""
        letter = DeadLetter(f"{self.name}-{row.seq}", row.kind, row.at, reason, row.body)
        with self._writing, self._write:
            self._write.execute("BEGIN IMMEDIATE")
            self._write.execute("INSERT OR IGNORE INTO dead VALUES (?,?,?,?,?)", letter)
            self._write.execute("UPDATE waiting SET body = ? WHERE seq = ?", (stub or b"", row.seq))
            self._write.execute("DELETE FROM waiting WHERE seq = ? AND body = x''", (row.seq,))
        self._count(0 if stub else -1, len(stub or b"") - len(row.body))

    def dead(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        with self._reading:
            return [DeadLetter._make(row) for row in self._read.execute("SELECT * FROM dead ORDER BY at, rowid")]

    def keep_dead(self, letters: Iterable[DeadLetter]) -> None:
        """Take in the dead letters of another file; one that is here already stays as it is."""
        with self._writing:
            self._write.executemany("INSERT OR IGNORE INTO dead VALUES (?,?,?,?,?)", letters)

    def forget_dead(self, letters: Iterable[DeadLetter]) -> None:
        """Forget these dead letters."""
        with self._writing:
            self._write.executemany("DELETE FROM dead WHERE id = ?", [(letter.id,) for letter in letters])

    def drop_excess(self, most_bytes: int) -> int:
        """Drop the oldest rows until the rest fits; returns how many went."""
        with self._writing:
            if self.size <= most_bytes:
                return 0
            return self._drop("seq <= ?", self._last_too_many(self.size - int(most_bytes * TRIM_TO)))

    def drop_old(self, oldest: float) -> int:
        """Drop rows and dead letters from before this time; returns how many rows went."""
        with self._writing:
            self._write.execute("DELETE FROM dead WHERE at < ?", (oldest,))
            return self._drop("at < ?", oldest) if self._is_older(oldest) else 0

    def _is_older(self, than: float) -> bool:
        first = self._write.execute("SELECT at FROM waiting ORDER BY seq LIMIT 1").fetchone()
        return first is not None and first[0] < than

    def _last_too_many(self, excess: int) -> int:
        cursor = self._write.execute(
            "SELECT seq, length(body) FROM waiting WHERE (seq > ? OR kind <> 'span') ORDER BY seq",
            (self.claim.accepted,),
        )
        last = 0
        with closing(cursor):
            for seq, size in cursor:
                last, excess = seq, excess - size
                if excess <= 0:
                    break
        return last

    def _drop(self, where: str, limit: float) -> int:
        found = self._write.execute(
            f"SELECT count(*), ifnull(sum(length(body)), 0) FROM waiting WHERE {where} AND (seq > ? OR kind <> 'span')",  # noqa: S608 - ours
            (limit, self.claim.accepted),
        ).fetchone()
        self._write.execute(f"DELETE FROM waiting WHERE {where}", (limit,))  # noqa: S608 - ours
        self._count(-found[0], -found[1])
        return found[0]

    def waiting(self) -> Waiting:
        """Return what waits here."""
        with self._reading:
            oldest, dead = self._read.execute(
                "SELECT (SELECT at FROM waiting WHERE (seq > ? OR kind <> 'span') ORDER BY seq LIMIT 1),"
                " (SELECT count(*) FROM dead)",
                (self.claim.accepted,),
            ).fetchone()
        return Waiting(self.rows, self.size, age(oldest), dead)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits; dead letters do not."""
        return self.rows <= 0

    def close(self) -> None:
        """Close the file; one with nothing in it goes, any other stays for whoever adopts it."""
        with self._writing, self._reading:
            empty = self.is_empty and not self.dead() and self.held == (0, 0)
            self._disconnect()
        if isinstance(self.claim, Claim):
            if empty:
                self.claim.remove()
            self.claim.give_up()

    def set_aside(self) -> None:
        """Rename a file that cannot be read, and let go of it."""
        with self._writing, self._reading:
            self._disconnect()
        if isinstance(self.claim, Claim):
            self.claim.set_aside()

    def before_fork(self) -> None:
        """Close the connections, which SQLite must not carry over a fork."""
        self._writing.acquire()
        self._reading.acquire()
        if self._path:
            self._disconnect()

    def after_fork(self) -> None:
        """Open them again, in the parent."""
        if self._path:
            self._connect()
        self._reading.release()
        self._writing.release()

    def abandon(self) -> None:
        """Leave the file to the parent, in the child."""
        if isinstance(self.claim, Claim):
            self.claim.give_up()

    def _connect(self) -> None:
        self._closed = False
        self._write = _open(self._path, "FULL" if self._fsync else "NORMAL")
        self._read = _open(self._path, "OFF") if self._path else self._write

    def _disconnect(self) -> None:
        self._closed = True
        if self._read is not self._write:
            self._read.close()
        self._write.close()

    def _count(self, rows: int, size: int) -> None:
        with self._figures:
            self.rows += rows
            self.size += size


def adopt(claim: Claim, *, fsync: bool = False) -> Spool | None:
    """Return the spool of this claim; None for one that cannot be read, which is set aside."""
    try:
        return Spool(claim, fsync=fsync)
    except sqlite3.OperationalError:
        claim.give_up()  # a full disk or a busy file: another time
    except sqlite3.DatabaseError:
        claim.set_aside()
    return None


def _fitting(rows: Iterable[Row], most_bytes: int) -> Iterator[Row]:
    size = 0
    for row in rows:
        size += len(row.body)
        if size > most_bytes and size > len(row.body):
            return
        yield row


def age(oldest: float | None) -> float:
    """Return the seconds since then, 0 where there is nothing to be old."""
    return max(0.0, time.time() - oldest) if oldest is not None else 0.0


def _open(path: Path | None, synchronous: str) -> sqlite3.Connection:
    if path and not path.exists():
        # SQLite would make it readable for others; what people said is in it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path or ":memory:", timeout=10, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
