"""All that one process spools to: its own file, memory where no disk takes it, the files of dead processes."""

import logging
import math
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from telemetry import failures
from telemetry.delivery import spool_folder
from telemetry.delivery.claim import adoptable
from telemetry.delivery.spool import SPAN, DeadLetter, Spool, adopt
from telemetry.delivery.spool_folder import Folder
from telemetry.scores import box
from telemetry.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What is kept of spans that no disk takes.
MEMORY_BYTES = 64 * 1024 * 1024
# So many rows one statement writes at most.
GROUP = 64
ADOPT_EVERY = 5  # ticks


class Record(NamedTuple):
    """What is written of a span: when it ended, its trace, whether it tells of an error, and its bytes."""

    at: float
    trace: str
    error: bool
    body: bytes


class Spools:
    """The spools of this process; whoever changes which they are, or writes records, holds the lock."""

    def __init__(self, settings: Settings, destination: str) -> None:
        self.lock = threading.RLock()
        self.file: Spool | None = None
        self.memory = Spool.memory()
        self.folder = Folder()
        self.dropped: Counter[str] = Counter()
        self.set_aside = 0
        self.disk_errors = 0
        self._settings = settings
        self._destination = destination
        self._adopted: list[Spool] = []
        self._verdicts: dict[str, bool] = {}
        self._ticks = 0

    def open(self) -> None:
        """Make the file of this process; without one, memory has to do."""
        self.file = self._open() if self._settings.spool else None

    def all(self) -> list[Spool]:
        """Return them, this process's own first."""
        return [*self.own(), *self._adopted]

    def own(self) -> list[Spool]:
        """Return the file and the memory of this process."""
        return [self.file, self.memory] if self.file else [self.memory]

    def store(self, records: Sequence[Record]) -> None:
        """Write records: to be sent, or held while it is not known that their trace is kept."""
        holds = self._settings.keep_rate is not None
        held = [record for record in records if holds and not self._verdicts.get(record.trace)]
        sent = [(r.at, r.body) for r in records if not holds or self._verdicts.get(r.trace)]
        with self.lock:
            for some in _groups(held):
                self._write(lambda spool, some=some: spool.hold(SPAN, some))
            for some in _groups(sent):
                self._write(lambda spool, some=some: spool.append(SPAN, some))

    def requeue(self, letters: Sequence[DeadLetter]) -> None:
        """Put dead letters behind what waits."""
        records = [(letter.at, letter.body) for letter in letters]
        with self.lock:
            for some in _groups(records):
                (self.file or self.memory).append(SPAN, some)

    def has(self, trace: str) -> bool:
        """Return whether spans of the trace are held, or kept already."""
        with self.lock:
            return bool(self._verdicts.get(trace)) or any(each.holds(trace) for each in self.all())

    def rule(self, trace: str, wanted: bool | None) -> bool:
        """Return whether the trace is kept, with that on disk: as wanted, for an error, or by the share."""
        with self.lock:
            kept = (
                bool(wanted)
                or any(each.tells_of_error(trace) for each in self.own())
                or (wanted is None and _in_share(trace, self._settings.keep_rate or 0.0))
            )
            for each in self.all():
                each.rule(trace, kept, time.time())
            self._verdicts[trace] = kept
        return kept

    def tick(self) -> None:
        """Look after the files: what is too old, and what dead processes left. To be called about once a second."""
        for each in [each for each in self.all() if not self._tend(each)]:
            self.broken(each)
        with self.lock:
            self._let_go()
            if self._settings.spool and self._ticks % ADOPT_EVERY == 0:
                self._adopt()
                self._clear_away()
                self.folder = spool_folder.survey(self._place(), self.all())
        self._ticks += 1

    def broken(self, file: Spool | None) -> None:
        """Set a file aside that cannot be read, and replace it if it is our own."""
        with self.lock:
            if file is None or file not in self.all():
                return
            file.set_aside()
            self.set_aside += 1
            if file is self.file:
                self.file = self._open()
            else:
                self._adopted.remove(file)

    def close(self) -> None:
        """Let go of all of them; what is still in memory goes to disk after all, or is lost."""
        with self.lock:
            self._last_chance()
            for each in self.all():
                try:
                    each.close()
                except sqlite3.Error as error:
                    failures.count("close the spool", error)
            self.file, self._adopted = None, []

    def before_fork(self) -> None:
        """Hold still."""
        self.lock.acquire()
        for each in self.all():
            each.before_fork()

    def after_fork(self) -> None:
        """Go on, in the parent."""
        for each in self.all():
            each.after_fork()
        self.lock.release()

    def abandon(self) -> None:
        """Leave everything to the parent, in the child."""
        for each in self.all():
            each.abandon()

    def _place(self) -> Path:
        return self._settings.spool_dir.absolute()

    def _open(self) -> Spool | None:
        try:
            return Spool.create(self._place(), self._destination, fsync=self._settings.spool_fsync)
        except (OSError, sqlite3.Error) as error:
            logger.warning(
                "finished spans are kept in memory until they are sent, and end with the process: %s cannot be "
                "written (%s); set TELEMETRY_SPOOL_DIR to a folder that can",
                self._settings.spool_dir,
                error,
            )
            return None

    def _write(self, write: Callable[[Spool], None]) -> None:
        try:
            if self.file:
                write(self.file)
                self._bound(self.file, self._settings.spool_max_bytes)
                return
        except sqlite3.OperationalError as error:
            self._full(error)
        except sqlite3.DatabaseError:
            self.broken(self.file)
        write(self.memory)
        self._bound(self.memory, min(MEMORY_BYTES, self._settings.spool_max_bytes))

    def _bound(self, each: Spool, most_bytes: int) -> None:
        if each.size > most_bytes:
            self.dropped["too many bytes"] += each.drop_excess(most_bytes)

    def _full(self, error: Exception) -> None:
        """The disk is full, or gone. An empty file is given back for a new one: that may be room enough."""
        self.disk_errors += 1
        if self.disk_errors == 1:
            logger.error("the spool cannot be written (%s): spans stay in memory, the oldest go when it is full", error)
        if self.file and self.file.is_empty:
            self.file.close()
            self.file = self._open()

    def _tend(self, each: Spool) -> bool:
        """Drop what is too old; returns whether the file can be read."""
        try:
            self.dropped["too old"] += each.drop_old(time.time() - self._settings.spool_max_age)
            if self._settings.keep_rate is not None or each in self._adopted:
                self._settle_held(each)
            each.waiting()
        except sqlite3.OperationalError:
            return True  # a full disk; next time
        except sqlite3.DatabaseError:
            return False
        return True

    def _settle_held(self, each: Spool) -> None:
        """Keep what nobody has decided about in time, and drop what nobody has brought back."""
        before = time.time() - self._settings.hold_s
        forget = time.time() - 10 * self._settings.hold_s  # so late may a span of the trace still end
        with self.lock:
            for trace in each.undecided(before):
                each.rule(trace, kept=True, at=time.time())
                self._verdicts[trace] = True
            self.dropped["not kept"] += each.let_go(before, forget)
            if each.held[1] > self._settings.spool_max_bytes:
                self.dropped["not kept"] += each.let_go(math.inf, forget)
            if each is self.memory:  # it is told of every verdict, whatever becomes of files
                known = each.verdicts()
                self._verdicts = {trace: kept for trace, kept in self._verdicts.items() if trace in known}

    def _adopt(self) -> None:
        for claim in adoptable(self._place(), self._destination):
            adopted = adopt(claim)
            if adopted:
                self._adopted.append(adopted)
                self._judge(adopted)
            elif not claim.path.exists():
                self.set_aside += 1

    def _clear_away(self) -> None:
        """Remove what nobody will send, and nobody has looked into, in all the time that spans are kept."""
        before = time.time() - self._settings.spool_max_age
        with suppress(OSError):  # another process was faster
            self.dropped["for another backend"] += spool_folder.drop_foreign(self._place(), self._destination, before)
            self.dropped["scores for another place"] += box.drop_foreign(self._place(), before)
            self.dropped["unreadable files"] += spool_folder.drop_corrupt(self._place(), before)

    def _judge(self, adopted: Spool) -> None:
        """Keep what a dead process had not decided, unless the rest of the trace was dropped here."""
        dropped = [trace for trace, kept in adopted.verdicts().items() if not kept]
        for trace in [*dropped, *adopted.undecided(math.inf)]:
            adopted.rule(trace, self._verdicts.get(trace, trace not in dropped), time.time())

    def _let_go(self) -> None:
        """Remove adopted files that have nothing to deliver any more; their dead letters move to our own."""
        for each in [each for each in self._adopted if each.is_empty and each.held == (0, 0)]:
            letters = each.dead()
            if letters and self.file:
                self.file.keep_dead(letters)
                each.forget_dead(letters)
            if self.file or not letters:
                self._adopted.remove(each)
                each.close()

    def _last_chance(self) -> None:
        rows = self.memory.take(SPAN, MEMORY_BYTES, MEMORY_BYTES)
        if rows and self.file:
            with suppress(sqlite3.DatabaseError):
                while some := rows[:GROUP]:
                    self.file.append(SPAN, [(row.at, row.body) for row in some])
                    del rows[:GROUP]
        if rows:
            self.dropped["no disk"] += len(rows)
            logger.error("%d spans are lost: they could neither be sent nor written to disk", len(rows))


def _groups(records: Sequence[T]) -> Iterator[Sequence[T]]:
    return (records[start : start + GROUP] for start in range(0, len(records), GROUP))


def _in_share(trace: str, rate: float) -> bool:
    """Whether a trace is among the share that is kept: the same for everybody who asks."""
    return int(trace[-16:] or "0", 16) < round(rate * 2**64)
