"""Finished spans on disk until the backend has them: one SQLite file per process, adopted when its owner is dead."""

import logging
import mmap
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, Self

try:
    import fcntl
except ImportError:  # no file locks, no adoption: such a system spools to memory
    fcntl = None

logger = logging.getLogger(__name__)

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
_MARKS = struct.Struct("<QQ")


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


class Folder(NamedTuple):
    """What waits in all the files of a folder, whoever owns them."""

    files: int = 0
    waiting: Waiting = Waiting()


class TakenError(Exception):
    """The owner of the file is alive."""


class Claim:
    """The right to one spool file, which ends with the process whatever ends it.

    It holds two marks that outlive a SIGKILL without a write to the database: how many rows were committed, and up to
    which row the backend has accepted them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            # Written, not truncated to size: on a full disk a mapped hole would kill the process.
            os.pwrite(self._fd, bytes(max(0, _MARKS.size - os.fstat(self._fd).st_size)), os.fstat(self._fd).st_size)
            self._marks = mmap.mmap(self._fd, _MARKS.size)
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        assert fcntl  # noqa: S101 - without it nobody gets here
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TakenError(self.path) from None
        # Between opening and locking it, its last owner may have removed it.
        if not self.path.exists() or not os.path.samestat(os.fstat(self._fd), self.path.stat()):
            raise TakenError(self.path)

    @property
    def committed(self) -> int:
        """How many rows were committed to the file."""
        return _MARKS.unpack_from(self._marks)[0]

    @committed.setter
    def committed(self, count: int) -> None:
        struct.pack_into("<Q", self._marks, 0, count)

    @property
    def accepted(self) -> int:
        """The row up to which the backend has accepted all that waited."""
        return _MARKS.unpack_from(self._marks)[1]

    @accepted.setter
    def accepted(self, seq: int) -> None:
        struct.pack_into("<Q", self._marks, 8, seq)

    def give_up(self) -> None:
        """Let others have the file. In a forked child, whose copy it is, the parent's claim stays."""
        self._marks.close()
        os.close(self._fd)


class NoClaim:
    """The marks of a spool in memory, which nobody can adopt."""

    def __init__(self) -> None:
        self.committed = 0
        self.accepted = 0


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
        self.rows, self.size = self._write.execute(
            "SELECT count(*), ifnull(sum(length(body)), 0) FROM waiting WHERE (seq > ? OR kind <> 'span')",
            (claim.accepted,),
        ).fetchone()

    @classmethod
    def create(cls, directory: Path, destination: str, *, fsync: bool = False) -> Self:
        """Return a new file of this process for what goes to this destination."""
        if fcntl is None:
            raise OSError("there are no file locks on this system")
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
            cursor = self._read.execute(
                "SELECT seq, kind, at, body FROM waiting WHERE seq > ? AND kind = ? ORDER BY seq LIMIT ? OFFSET ?",
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
        self._count(-len(rows), -sum(len(row.body) for row in rows))
        with self._writing, suppress(sqlite3.OperationalError):
            self._write.execute("DELETE FROM waiting WHERE seq <= ? AND kind = ?", (rows[-1].seq, rows[-1].kind))

    def remove(self, row: Row) -> None:
        """Forget one row wherever it stands."""
        with self._writing:
            self._write.execute("DELETE FROM waiting WHERE seq = ?", (row.seq,))
        self._count(-1, -len(row.body))

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
        return Waiting(self.rows, self.size, _age(oldest), dead)

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
                remove(self.claim.path)
            self.claim.give_up()

    def set_aside(self) -> None:
        """Rename a file that cannot be read, and let go of it."""
        with self._writing, self._reading:
            self._disconnect()
        if isinstance(self.claim, Claim):
            set_aside(self.claim)

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


def adoptable(directory: Path, destination: str) -> Iterator[Claim]:
    """Yield the claims of files for this destination whose owners are dead; who takes one must let go of it."""
    if fcntl is None:
        return
    for path in sorted(directory.glob(f"{destination}-*.lock")):
        with suppress(TakenError, OSError):
            yield Claim(path)


def adopt(claim: Claim, *, fsync: bool = False) -> Spool | None:
    """Return the spool of this claim; None for one that cannot be read, which is set aside."""
    try:
        return Spool(claim, fsync=fsync)
    except sqlite3.OperationalError:
        claim.give_up()  # a full disk or a busy file: another time
    except sqlite3.DatabaseError:
        set_aside(claim)
    return None


def set_aside(claim: Claim) -> None:
    """Rename the file of this claim to .corrupt and let go of it; a person may look into it."""
    database = claim.path.with_suffix(".db")
    logger.error("the spool file %s cannot be read: it is set aside as %s.corrupt", database, database.stem)
    for end in ("", "-wal"):
        with suppress(FileNotFoundError):
            Path(f"{database}{end}").rename(f"{database.with_suffix('.corrupt')}{end}")
    remove(claim.path)
    claim.give_up()


def remove(lock: Path) -> None:
    """Remove a spool file, its lock last, so that no file is without one."""
    database = lock.with_suffix(".db")
    for path in (f"{database}-wal", f"{database}-shm", database, lock):
        Path(path).unlink(missing_ok=True)


def look(database: Path) -> Waiting | None:
    """Return what waits in the file of another process; None if it cannot be told now."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0.2)) as connection:
            accepted = _MARKS.unpack_from(database.with_suffix(".lock").read_bytes())[1]
            rows, size, oldest, dead = connection.execute(
                "SELECT count(*), ifnull(sum(length(body)), 0), min(at), (SELECT count(*) FROM dead) FROM waiting"
                " WHERE (seq > ? OR kind <> 'span')",
                (accepted,),
            ).fetchone()
    except (sqlite3.Error, OSError, struct.error):
        return None
    return Waiting(rows, size, _age(oldest), dead)


def dead_letters(database: Path) -> list[DeadLetter]:
    """Return the dead letters of a file, whoever owns it."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            return [DeadLetter._make(row) for row in connection.execute("SELECT * FROM dead ORDER BY at")]
    except sqlite3.Error:
        return []


def forget_dead(database: Path, letters: Iterable[DeadLetter]) -> None:
    """Forget these dead letters of a file, whoever owns it."""
    with closing(sqlite3.connect(database, timeout=5, isolation_level=None)) as connection:
        connection.executemany("DELETE FROM dead WHERE id = ?", [(letter.id,) for letter in letters])


def survey(folder: Path, ours: Iterable[Spool]) -> Folder:
    """Return what waits in the folder; of our own files without a look at the disk."""
    known = {spool.name: spool for spool in ours if spool.on_disk}
    found = [_waiting(known.get(path.stem), path) for path in folder.glob("*.db")]
    rows, sizes, ages, dead = zip(*found, strict=True) if found else ([0], [0], [0.0], [0])
    return Folder(len(found), Waiting(sum(rows), sum(sizes), max(ages), sum(dead)))


def _waiting(ours: Spool | None, database: Path) -> Waiting:
    if ours is None:
        return look(database) or Waiting()
    try:
        return ours.waiting()
    except sqlite3.Error:  # broken, or replaced at this moment
        return Waiting()


def _fitting(rows: Iterable[Row], most_bytes: int) -> Iterator[Row]:
    size = 0
    for row in rows:
        size += len(row.body)
        if size > most_bytes and size > len(row.body):
            return
        yield row


def _age(oldest: float | None) -> float:
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
