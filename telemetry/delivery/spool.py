"""The spool of one process, in a folder that it may share with other processes.

A process has its own file, a store in memory if the disk cannot be written, and the files that it took over from dead
processes.
"""

import logging
import math
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple, TypeVar

from telemetry import internal_errors
from telemetry.delivery import scores
from telemetry.delivery.clock import SteadyClock
from telemetry.delivery.lock import LockedError, SpoolLock, orphaned_locks, read_accepted
from telemetry.delivery.store import (
    MEDIA,
    SPAN,
    DeadLetter,
    SpoolStore,
    UnusableError,
    Waiting,
    adopt,
    is_transient,
    last_written,
    seconds_since,
)
from telemetry.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The most bytes of spans to keep in memory if the disk cannot be written.
MEMORY_BYTES = 64 * 1024 * 1024
# The most rows that one statement writes.
MAX_GROUP = 64
# Of the bytes that a process may keep, files may take this share: spans are not dropped for them.
MEDIA_SHARE = 0.25
ADOPT_EVERY = 5  # calls of `maintain`
# How long to wait before a file that could not be taken over is tried again.
RETRY_ADOPTION_S = 60.0


class Record(NamedTuple):
    """A span, or a file of one, to be written: when it ended, its trace, whether it has an error, and its bytes."""

    at: float
    trace: str
    error: bool
    body: bytes


class Folder(NamedTuple):
    """The content of all files of a folder, whoever owns them."""

    files: int = 0
    waiting: Waiting = Waiting()


class Spool:
    """The stores of this process. Adding or removing stores and writing records requires the lock."""

    def __init__(self, settings: Settings, destination: str) -> None:
        self.lock = threading.RLock()
        self.file: SpoolStore | None = None
        self.memory = SpoolStore.memory()
        self.folder = Folder()
        self.dropped: Counter[str] = Counter()
        self.taken_over = 0
        self.set_aside = 0
        self.disk_errors = 0
        self._settings = settings
        self._destination = destination
        self._directory = settings.spool_dir.absolute()
        self._adopted: list[SpoolStore] = []
        # Locks of files that could not be taken over, and when to try again.
        self._unusable: dict[Path, float] = {}
        self._decisions: dict[str, bool] = {}
        self._clock = SteadyClock()
        self._rounds = 0

    @property
    def unusable(self) -> int:
        """How many files of other processes can be neither taken over nor set aside."""
        return len(self._unusable)

    def open(self) -> None:
        """Create the file of this process; if that fails, spool to memory."""
        self.file = self._create() if self._settings.spool else None

    def stores(self) -> list[SpoolStore]:
        """Return all stores, this process's own first."""
        return [*self.own_stores(), *self._adopted]

    def own_stores(self) -> list[SpoolStore]:
        """Return the file and the memory of this process."""
        return [self.file, self.memory] if self.file else [self.memory]

    def write(self, records: Sequence[Record], kind: str = SPAN) -> None:
        """Write records, to be sent now, or to be held until the sampling decision about their trace.

        Their age is counted from now, by a clock that does not jump, whatever their own times are.
        """
        now = self._clock.now()
        records = [record._replace(at=now) for record in records]
        holds = self._settings.keep_rate is not None
        held = [record for record in records if holds and not self._decisions.get(record.trace)]
        sent = [(r.at, r.body) for r in records if not holds or self._decisions.get(r.trace)]
        with self.lock:
            for group in _groups(held):
                self._write(lambda store, group=group: store.hold(kind, group))
            for group in _groups(sent):
                self._write(lambda store, group=group: store.append(kind, group))

    def requeue(self, letters: Sequence[DeadLetter]) -> None:
        """Append dead letters to the waiting rows."""
        records = [(letter.at, letter.body) for letter in letters]
        with self.lock:
            for group in _groups(records):
                (self.file or self.memory).append(SPAN, group)

    def has(self, trace: str) -> bool:
        """Return whether spans of the trace are held, or the trace is kept already."""
        with self.lock:
            return bool(self._decisions.get(trace)) or any(self._of_each(lambda store: store.holds(trace)))

    def decide(self, trace: str, wanted: bool | None) -> bool:
        """Return whether the trace is kept (as wanted, for an error, or by the share), with the decision on disk."""
        with self.lock:
            kept = (
                bool(wanted)
                or any(store.holds_error(trace) for store in self.own_stores())
                or (wanted is None and _in_share(trace, self._settings.keep_rate or 0.0))
            )
            self._of_each(lambda store: store.record_decision(trace, kept, self._clock.now()))
            self._decisions[trace] = kept
        return kept

    def maintain(self) -> None:
        """Drop old rows, and take over files of dead processes. Call it about once a second."""
        for store in [store for store in self.stores() if not self._maintain_store(store)]:
            self.replace_unreadable(store)
        with self.lock:
            self._close_drained()
            if self._settings.spool and self._rounds % ADOPT_EVERY == 0:
                self._adopt()
                self._remove_expired()
                self.folder = survey(self._directory, self.stores())
        self._rounds += 1

    def replace_unreadable(self, store: SpoolStore | None) -> None:
        """Set an unreadable file aside, and replace it if it is our own."""
        with self.lock:
            if store is None or store not in self.stores():
                return
            store.quarantine()
            self.set_aside += 1
            if store is self.file:
                self.file = self._create()
            else:
                self._adopted.remove(store)

    def close(self) -> None:
        """Close all stores; rows in memory are written to disk if that works now, or are lost."""
        with self.lock:
            self._write_out_memory()
            for store in self.stores():
                try:
                    store.close()
                except sqlite3.Error as error:
                    internal_errors.record("close the spool", error)
            self.file, self._adopted = None, []

    def before_fork(self) -> None:
        """Pause until the fork is over."""
        self.lock.acquire()
        for store in self.stores():
            store.before_fork()

    def after_fork_in_parent(self) -> None:
        """Continue."""
        for store in self.stores():
            store.after_fork_in_parent()
        self.lock.release()

    def after_fork_in_child(self) -> None:
        """Leave the stores to the parent."""
        for store in self.stores():
            store.after_fork_in_child()

    def _create(self) -> SpoolStore | None:
        try:
            return SpoolStore.create(self._directory, self._destination, fsync=self._settings.spool_fsync)
        except (OSError, sqlite3.Error) as error:
            logger.warning(
                "finished spans are kept in memory, and lost if the process ends before they are sent: %s cannot be "
                "written (%s); set TELEMETRY_SPOOL_DIR to a writable folder",
                self._settings.spool_dir,
                error,
            )
            return None

    def _of_each(self, action: Callable[[SpoolStore], T]) -> list[T]:
        """Return the result of the action for each store; errors of taken-over files are left to `maintain`."""
        own = [action(store) for store in self.own_stores()]
        for store in self._adopted:
            with suppress(sqlite3.DatabaseError):
                own.append(action(store))
        return own

    def _write(self, write: Callable[[SpoolStore], None]) -> None:
        max_bytes = self._settings.spool_max_bytes
        store = self.file
        try:
            if store:
                write(store)
        except sqlite3.DatabaseError as error:
            if is_transient(error):
                self._record_disk_error(error)
            else:
                self.replace_unreadable(store)
            store = None
        if store is None:
            store, max_bytes = self.memory, min(MEMORY_BYTES, max_bytes)
            write(store)
        # A file may be as large as many spans.
        self.dropped["too many bytes of files"] += store.drop_excess_media(int(max_bytes * MEDIA_SHARE))
        if store.size > max_bytes:
            self.dropped["too many bytes"] += store.drop_excess(max_bytes)

    def _record_disk_error(self, error: Exception) -> None:
        """Count a disk error. An empty file is replaced by a new one, which may free enough space."""
        self.disk_errors += 1
        if self.disk_errors == 1:
            logger.error(
                "the spool cannot be written (%s): spans stay in memory; when that is full, the oldest are dropped",
                error,
            )
        if self.file and self.file.is_empty:
            self.file.close()
            self.file = self._create()

    def _maintain_store(self, store: SpoolStore) -> bool:
        """Drop old rows; return whether the file can be read."""
        try:
            self.dropped["too old"] += store.drop_old(self._clock.now() - self._settings.spool_max_age)
            if self._settings.keep_rate is not None or store in self._adopted:
                self._settle_held(store)
            store.waiting()
        except sqlite3.DatabaseError as error:
            return is_transient(error)  # a full disk or a busy file: try again next time
        return True

    def _settle_held(self, store: SpoolStore) -> None:
        """Keep traces without a decision in time, and drop those that were not restored."""
        before = self._clock.now() - self._settings.hold_s
        forget = self._clock.now() - 10 * self._settings.hold_s  # the latest time at which a span of the trace may end
        with self.lock:
            for trace in store.undecided(before):
                store.record_decision(trace, kept=True, at=self._clock.now())
                self._decisions[trace] = True
            self.dropped["not kept"] += store.drop_unkept(before, forget)
            if store.held[1] > self._settings.spool_max_bytes:
                self.dropped["not kept"] += store.drop_unkept(math.inf, forget)
            if store is self.memory:  # it gets every decision, even if files fail
                remembered = store.decisions()
                self._decisions = {trace: kept for trace, kept in self._decisions.items() if trace in remembered}

    def _adopt(self) -> None:
        now = time.monotonic()
        waiting = {path for path, at in self._unusable.items() if at > now}
        for lock in orphaned_locks(self._directory, self._destination, skip=waiting, on_error=self._mark_unusable):
            try:
                adopted = adopt(lock)
                if adopted is None:
                    self.set_aside += 1
                else:
                    self._adopted.append(adopted)
                    self.taken_over += 1
                    self._decide_adopted(adopted)
            except UnusableError as error:
                self._mark_unusable(lock.path, error)
            else:
                self._unusable.pop(lock.path, None)
        # The lock may be gone although its file is not.
        gone = {path for path in self._unusable if not any(map(os.path.lexists, (path, _database(path))))}
        for path in gone:
            del self._unusable[path]

    def _mark_unusable(self, lock: Path, error: Exception) -> None:
        if lock not in self._unusable:
            logger.error("the spool file %s cannot be used (%s): it is left in place", _database(lock), error)
        self._unusable[lock] = time.monotonic() + RETRY_ADOPTION_S

    def _decide_adopted(self, adopted: SpoolStore) -> None:
        """Keep traces that a dead process had not decided, unless their other spans were dropped here."""
        try:
            dropped = [trace for trace, kept in adopted.decisions().items() if not kept]
            for trace in [*dropped, *adopted.undecided(math.inf)]:
                adopted.record_decision(trace, self._decisions.get(trace, trace not in dropped), self._clock.now())
        except sqlite3.DatabaseError as error:
            if not is_transient(error):
                self.replace_unreadable(adopted)

    def _remove_expired(self) -> None:
        """Delete files that no process sends, once they are older than the maximum age."""
        before = self._clock.now() - self._settings.spool_max_age
        for what, drop in {
            "for another backend": lambda: drop_foreign(self._directory, self._destination, before),
            "scores for another backend": lambda: scores.drop_foreign(self._directory, before),
            "unreadable files": lambda: drop_corrupt(self._directory, before),
        }.items():
            with suppress(OSError, sqlite3.Error):  # another process was faster
                self.dropped[what] += drop()

    def _close_drained(self) -> None:
        """Delete taken-over files without waiting rows; their dead letters move to our own file."""
        for store in [store for store in self._adopted if store.is_empty]:
            try:
                if store.held != (0, 0):
                    continue
                letters = store.dead_letters()
                if letters and self.file:
                    self.file.add_dead_letters(letters)
                    store.remove_dead_letters(letters)
                if self.file or not letters:
                    self._adopted.remove(store)
                    store.close()
            except sqlite3.DatabaseError as error:
                if not is_transient(error):
                    self.replace_unreadable(store)

    def _write_out_memory(self) -> None:
        lost = 0
        for kind in (SPAN, MEDIA):
            rows = self.memory.take(kind, MEMORY_BYTES, MEMORY_BYTES)
            if rows and self.file:
                with suppress(sqlite3.DatabaseError):
                    while group := rows[:MAX_GROUP]:
                        self.file.append(kind, [(row.at, row.body) for row in group])
                        del rows[:MAX_GROUP]
            lost += len(rows)
        if lost:
            self.dropped["no disk"] += lost
            logger.error("%d spans are lost: they could neither be sent nor written to disk", lost)


def why_unwritable(folder: Path) -> str | None:
    """Return why the folder cannot be written, None if it can; the folder is not changed."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
    return None


def inspect(database: Path) -> Waiting | None:
    """Return what is waiting in the file of another process; None if it cannot be read now."""
    try:
        if not database.is_file():
            return None  # opening a pipe would wait for its other end
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0.1)) as connection:
            accepted = read_accepted(database.with_suffix(".lock"))
            rows, size, oldest, dead, media = connection.execute(
                "SELECT count(*) FILTER (WHERE kind <> 'media'), ifnull(sum(length(body)), 0), min(at),"
                " (SELECT count(*) FROM dead), count(*) FILTER (WHERE kind = 'media') FROM waiting"
                " WHERE (seq > ? OR kind <> 'span')",
                (accepted,),
            ).fetchone()
        return Waiting(rows, size, seconds_since(oldest), dead, media)
    except (sqlite3.Error, OSError, TypeError):  # a time that is not a number means damage
        return None


def read_dead_letters(database: Path) -> list[DeadLetter]:
    """Return the dead letters of a file, whoever owns it."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            return [DeadLetter._make(row) for row in connection.execute("SELECT * FROM dead ORDER BY at")]
    except sqlite3.Error:
        return []


def remove_dead_letters(database: Path, letters: Iterable[DeadLetter]) -> None:
    """Remove these dead letters of a file, whoever owns it."""
    with closing(sqlite3.connect(database, timeout=5, isolation_level=None)) as connection:
        connection.executemany("DELETE FROM dead WHERE id = ?", [(letter.id,) for letter in letters])


def drop_foreign(folder: Path, destination: str, oldest: float) -> int:
    """Delete dead processes' files for other destinations, last written before this time; return the number of rows.

    No process sends them once the endpoint or the key has changed, and they contain conversations.
    """
    dropped = 0
    for path in [path for path in folder.glob("*.lock") if not path.name.startswith(f"{destination}-")]:
        try:
            if last_written(_database(path)) >= oldest:
                continue
            lock = SpoolLock(path)
        except (LockedError, OSError):
            continue
        rows = (inspect(lock.database) or Waiting()).rows
        lock.remove_files()
        lock.release()
        logger.warning(
            "%s is for another backend and older than TELEMETRY_SPOOL_MAX_AGE: deleted, with %d spans",
            path.stem,
            rows,
        )
        dropped += rows
    return dropped


def drop_corrupt(folder: Path, oldest: float) -> int:
    """Delete files that were set aside before this time; return their number."""
    old = [path for path in folder.glob("*.corrupt") if path.stat().st_ctime < oldest]
    for path in old:
        for end in ("-wal", "-shm", ""):
            Path(f"{path}{end}").unlink(missing_ok=True)
        logger.warning("%s could not be read and is older than TELEMETRY_SPOOL_MAX_AGE: deleted", path)
    return len(old)


def survey(folder: Path, ours: Iterable[SpoolStore]) -> Folder:
    """Return what is waiting in the folder; for our own files without reading the disk."""
    stores = {store.name: store for store in ours if store.on_disk}
    found: list[Waiting] = []
    for path in folder.glob("*.db"):
        try:
            store = stores.get(path.stem)
            found.append(store.waiting() if store else inspect(path) or Waiting())
        except sqlite3.Error:  # damaged, or being replaced
            found.append(Waiting())
    rows, sizes, ages, dead, media = zip(*found, strict=True) if found else ([0], [0], [0.0], [0], [0])
    return Folder(len(found), Waiting(sum(rows), sum(sizes), max(ages), sum(dead), sum(media)))


def _database(lock: Path) -> Path:
    return lock.with_suffix(".db")


def _groups(records: Sequence[T]) -> Iterator[Sequence[T]]:
    return (records[start : start + MAX_GROUP] for start in range(0, len(records), MAX_GROUP))


def _in_share(trace: str, rate: float) -> bool:
    """Return whether a trace is in the share that is kept; every process gets the same result."""
    return int(trace[-16:] or "0", 16) < round(rate * 2**64)
