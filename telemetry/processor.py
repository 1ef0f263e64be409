"""The processor that spans end in: it only enqueues; a thread writes them to the spool, another delivers."""

import logging
import math
import os
import sqlite3
import threading
import time
from base64 import b64decode
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from weakref import WeakSet

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import StatusCode, format_trace_id

from telemetry import failures, spool
from telemetry.deliver import Deliverer
from telemetry.post import Poster
from telemetry.settings import Settings
from telemetry.shorten import SHORTENED
from telemetry.spool import SPAN, DeadLetter, Folder, Spool

logger = logging.getLogger(__name__)

# Past so many spans in memory whoever ends one writes some himself.
MOST_PENDING = 2048
# One commit: so many spans, so many bytes, or so long to prepare them.
GROUP = 64
GROUP_BYTES = 1_000_000
GROUP_S = 0.005
GATHER_S = 0.005
# What is kept of spans that no disk takes.
MEMORY_BYTES = 64 * 1024 * 1024
# How long a shutdown waits for each next answer of a backend that answers.
FAREWELL_S = 2.0
ADOPT_EVERY = 5  # ticks
LAGS = 2048
# How long the end of a turn waits for its verdict to be on disk.
VERDICT_S = 2.0
_SHORTENED = SHORTENED.encode()
_REDACTED = b"[redacted"

# What is written of a span: when it ended, its trace, whether it tells of an error, and its bytes.
Record = tuple[float, str, bool, bytes]
Prepare = Callable[[ReadableSpan], bytes]


class SpoolProcessor(SpanProcessor):
    """Gives each sampled span that ends to the spool of the process that it ends in."""

    def __init__(self, settings: Settings, prepare: Prepare, interval_s: float = 0.5) -> None:
        self._settings = settings
        self._prepare = prepare
        self._interval_s = interval_s
        self.outbox = Outbox(settings, prepare, interval_s)
        _follow_forks(self)

    def on_end(self, span: ReadableSpan) -> None:
        """Enqueue it."""
        context = span.context
        if context and context.trace_flags.sampled:
            self.outbox.put(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what is pending, and return whether the backend has it; at once where the backend is down."""
        return self.outbox.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Write what is pending, send what can be sent, and leave the rest to the next process."""
        self.outbox.close()

    def renew(self) -> None:
        """Begin anew, in a forked child."""
        self.outbox.abandon()
        self.outbox = Outbox(self._settings, self._prepare, self._interval_s)


@dataclass
class Verdict:
    """The question whether a trace is kept, on its way through the queue behind the spans that ended before it."""

    trace: str
    wanted: bool | None
    kept: bool = True
    known: threading.Event = field(default_factory=threading.Event)


class Outbox:
    """What one process has of ended spans: pending in memory, and in spools; its threads start with the first one."""

    def __init__(self, settings: Settings, prepare: Prepare, interval_s: float) -> None:
        self.settings = settings
        self.destination = destination(settings)
        self.dropped: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.folder = Folder()
        self.lags: deque[float] = deque(maxlen=LAGS)
        self.set_aside = 0
        self.disk_errors = 0
        self._prepare = prepare
        self._pending: deque[ReadableSpan | Verdict] = deque()
        self._verdicts: dict[str, bool] = {}
        self._committing = threading.RLock()
        self._changing = threading.RLock()
        self._wake = threading.Event()
        self._closed = False
        self._started = False
        self._ticks = 0
        self._file: Spool | None = None
        self._memory = Spool.memory()
        self._adopted: list[Spool] = []
        self._writer = threading.Thread(target=self._write, name="telemetry-spool", daemon=True)
        self.deliverer = Deliverer(
            Poster(settings),
            self.spools,
            self._tick,
            self._broken,
            most_bytes=settings.max_request_bytes,
            interval_s=interval_s,
        )

    def put(self, span: ReadableSpan) -> None:
        """Take a span that has ended."""
        if self._closed:
            self.dropped["after the end"] += 1
            return
        self._enqueue(span)

    def decide(self, trace: str, wanted: bool | None) -> bool:
        """Return whether the trace is kept, as soon as that is on disk; where it cannot be told in time, it is.

        `wanted` is what is known already; None asks for the rule: errors among its spans, else the set share.
        """
        if self.settings.keep_rate is None or self._closed:
            return True
        verdict = Verdict(trace, wanted)
        self._enqueue(verdict)
        if not verdict.known.wait(VERDICT_S):
            self._enqueue(Verdict(trace, wanted=True))
            return True
        return verdict.kept

    def _enqueue(self, item: "ReadableSpan | Verdict") -> None:
        self._pending.append(item)
        if not self._started:
            self.start()
        if self.settings.spool_write_through or len(self._pending) > MOST_PENDING:
            self._commit()
        elif not self._wake.is_set():
            self._wake.set()

    def start(self) -> None:
        """Open the file and start the threads, once."""
        with self._committing:
            if self._started:
                return
            self._started = True
            if self.settings.spool:
                self._file = self._open_file()
            self._writer.start()
            self.deliverer.start()

    @property
    def pending(self) -> int:
        """How many spans are in memory only, not written anywhere."""
        return len(self._pending)

    @property
    def file(self) -> Spool | None:
        """The spool on disk, None where there is none."""
        return self._file

    @property
    def memory(self) -> Spool:
        """The spool for what no disk takes."""
        return self._memory

    def spools(self) -> list[Spool]:
        """Return all that is to be delivered: this process's own, then those of the dead."""
        own = [self._file] if self._file else []
        return [*own, self._memory, *self._adopted]

    def flush(self, seconds: float) -> bool:
        """Write what is pending; return whether all that is this process's own was accepted in time."""
        if not self._started:
            return True
        self._commit_all()
        return self.deliverer.drain(self._own(), seconds)

    def requeue(self, letters: Sequence[DeadLetter]) -> None:
        """Put dead letters behind what waits."""
        with self._committing:
            for start in range(0, len(letters), GROUP):
                self._requeue([(letter.at, letter.body) for letter in letters[start : start + GROUP]])

    def _requeue(self, records: Sequence[tuple[float, bytes]]) -> None:
        (self._file or self._memory).append(SPAN, records)
        self.deliverer.wake()

    def close(self) -> None:
        """Write what is pending, deliver while the backend answers, stop."""
        if self._closed:
            return
        self._closed = True
        if not self._started:
            return
        self._commit_all()
        self._wake.set()
        self.deliverer.drain(self._own(), FAREWELL_S)
        self.deliverer.stop(FAREWELL_S if not self.deliverer.backend.is_down else 0.1)
        self._writer.join(FAREWELL_S)
        with self._committing, self._changing:
            self._commit_all()
            self._last_chance()
            for each in self.spools():
                try:
                    each.close()
                except sqlite3.Error as error:
                    failures.count("close the spool", error)
            self._file, self._adopted = None, []

    def _own(self) -> list[Spool]:
        return [self._file, self._memory] if self._file else [self._memory]

    def _last_chance(self) -> None:
        """What is still in memory goes to disk after all, or is lost."""
        rows = self._memory.take(SPAN, MEMORY_BYTES, 1_000_000)
        if rows and self._file:
            with suppress(sqlite3.DatabaseError):
                while group := rows[:GROUP]:
                    self._file.append(SPAN, [(row.at, row.body) for row in group])
                    del rows[:GROUP]
        if rows:
            self.dropped["no disk"] += len(rows)
            logger.error("%d spans are lost: they could neither be sent nor written to disk", len(rows))

    # --- the writer ---

    def _write(self) -> None:
        while not self._closed:
            self._wake.wait()
            # Spans come in swarms: one commit for those of these milliseconds costs as much as one for the first.
            time.sleep(GATHER_S)
            self._wake.clear()
            self._commit_all()

    def _commit_all(self) -> None:
        while self._commit():
            pass

    def _commit(self) -> int:
        """Write one group of the pending spans, oldest first, or pass one verdict; returns how many."""
        with self._committing:
            if self._pending and isinstance(self._pending[0], Verdict):
                self._pass(self._pending.popleft())  # pyright: ignore[reportArgumentType] - asked for above
                return 1
            spans, records = self._group()
            if records:
                self._store(records)
                self._measure(spans)
        if records:
            self.deliverer.wake()
        return len(spans)

    def _group(self) -> tuple[list[ReadableSpan], list[Record]]:
        spans: list[ReadableSpan] = []
        records: list[Record] = []
        size, deadline = 0, time.perf_counter() + GROUP_S
        while self._pending and len(spans) < GROUP and size < GROUP_BYTES and time.perf_counter() < deadline:
            span = self._pending[0]
            if isinstance(span, Verdict):
                break
            self._pending.popleft()
            body = self._prepare(span)
            spans.append(span)
            records.append(_record(span, body))
            size += len(body)
            self.counts["shortened"] += _SHORTENED in body
            self.counts["redacted"] += _REDACTED in body
        return spans, records

    def _store(self, records: Sequence[Record]) -> None:
        try:
            if self._file:
                self._put_into(self._file, records, self.settings.spool_max_bytes)
                return
        except sqlite3.OperationalError as error:
            self._file_failed(error)
        except sqlite3.DatabaseError:
            self._broken(self._file)
        self._put_into(self._memory, records, min(MEMORY_BYTES, self.settings.spool_max_bytes))

    def _put_into(self, spool: Spool, records: Sequence[Record], most_bytes: int) -> None:
        holds = self.settings.keep_rate is not None
        held = [record for record in records if holds and not self._verdicts.get(record[1])]
        if held:
            spool.hold(SPAN, held)
        if len(held) < len(records):
            sent = records if not held else [record for record in records if self._verdicts.get(record[1])]
            spool.append(SPAN, [(at, body) for at, _, _, body in sent])
            self._trim(spool, most_bytes)

    def _pass(self, verdict: Verdict) -> None:
        """Decide, with all of the trace's spans so far in the spool, and remember it there."""
        own = self._own()
        kept = (
            bool(verdict.wanted)
            or any(spool.tells_of_error(verdict.trace) for spool in own)
            or (verdict.wanted is None and _in_share(verdict.trace, self.settings.keep_rate or 0.0))
        )
        try:
            for spool in self.spools():
                spool.rule(verdict.trace, kept, time.time())
        except sqlite3.DatabaseError as error:
            failures.count("write a verdict", error)
            return
        self._verdicts[verdict.trace] = verdict.kept = kept
        verdict.known.set()
        self.deliverer.wake()

    def _measure(self, spans: list[ReadableSpan]) -> None:
        now = time.time_ns()
        self.lags.extend((now - span.end_time) / 1e9 for span in spans if span.end_time)

    def _trim(self, spool: Spool, most_bytes: int) -> None:
        if spool.size > most_bytes:
            self.dropped["too many bytes"] += spool.drop_excess(most_bytes)

    # --- the files ---

    def _folder(self) -> Path:
        return self.settings.spool_dir.absolute()

    def _open_file(self) -> Spool | None:
        try:
            return Spool.create(self._folder(), self.destination, fsync=self.settings.spool_fsync)
        except (OSError, sqlite3.Error) as error:
            logger.warning(
                "finished spans are kept in memory until they are sent, and end with the process: %s cannot be "
                "written (%s); set TELEMETRY_SPOOL_DIR to a folder that can",
                self.settings.spool_dir,
                error,
            )
            return None

    def _file_failed(self, error: Exception) -> None:
        """The disk is full, or gone: spans stay in memory meanwhile. An empty file is given back for a new one."""
        self.disk_errors += 1
        if self.disk_errors == 1:
            logger.error("the spool cannot be written (%s): spans stay in memory, the oldest go when it is full", error)
        if self._file and self._file.is_empty:
            with self._changing:
                self._file.close()
                self._file = self._open_file()

    def _broken(self, file: Spool | None) -> None:
        """A file cannot be read: it is set aside, and our own replaced."""
        with self._committing, self._changing:
            if file not in self.spools():
                return
            file.set_aside()
            self.set_aside += 1
            if file is self._file:
                self._file = self._open_file()
            else:
                self._adopted.remove(file)

    def _tick(self) -> None:
        """Look after the files: too old ones, and those of the dead. The deliverer calls it, about once a second."""
        for each in [each for each in self.spools() if not self._tend(each)]:
            self._broken(each)
        with self._changing:
            self._let_go()
            if self.settings.spool and self._ticks % ADOPT_EVERY == 0:
                self._adopt()
                self.folder = spool.survey(self._folder(), self.spools())
        self._ticks += 1

    def _tend(self, each: Spool) -> bool:
        """Drop what is too old; returns whether the file can be read."""
        try:
            self.dropped["too old"] += each.drop_old(time.time() - self.settings.spool_max_age)
            if self.settings.keep_rate is not None or each in self._adopted:
                self._settle_held(each)
            each.waiting()
        except sqlite3.OperationalError:
            return True  # a full disk; next time
        except sqlite3.DatabaseError:
            return False
        return True

    def _adopt(self) -> None:
        for claim in spool.adoptable(self._folder(), self.destination):
            adopted = spool.adopt(claim)
            if adopted:
                self._adopted.append(adopted)
                # What a dead process had not decided is kept, unless the rest of the trace was dropped here.
                dropped = [trace for trace, kept in adopted.verdicts().items() if not kept]
                for trace in [*dropped, *adopted.undecided(math.inf)]:
                    adopted.rule(trace, self._verdicts.get(trace, trace not in dropped), time.time())
            elif not claim.path.exists():
                self.set_aside += 1

    def _settle_held(self, each: Spool) -> None:
        """Keep what nobody has decided about in time, and drop what nobody has brought back."""
        before = time.time() - self.settings.hold_s
        forget = time.time() - 10 * self.settings.hold_s  # so late may a span of the trace still end
        with self._committing:
            for trace in each.undecided(before):
                each.rule(trace, kept=True, at=time.time())
                self._verdicts[trace] = True
            self.dropped["not kept"] += each.let_go(before, forget)
            if each.held[1] > self.settings.spool_max_bytes:
                self.dropped["not kept"] += each.let_go(math.inf, forget)
            if each is self._memory:  # it is told of every verdict, whatever becomes of files
                known = each.verdicts()
                self._verdicts = {trace: kept for trace, kept in self._verdicts.items() if trace in known}

    def _let_go(self) -> None:
        """Remove adopted files that have nothing to deliver any more; their dead letters move to our own."""
        for each in [each for each in self._adopted if each.is_empty and each.held == (0, 0)]:
            letters = each.dead()
            if letters and self._file:
                self._file.keep_dead(letters)
                each.forget_dead(letters)
            if self._file or not letters:
                self._adopted.remove(each)
                each.close()

    # --- forks ---

    def before_fork(self) -> None:
        """Hold still."""
        self._committing.acquire()
        self._changing.acquire()
        for each in self.spools():
            each.before_fork()

    def after_fork(self) -> None:
        """Go on, in the parent."""
        for each in self.spools():
            each.after_fork()
        self._changing.release()
        self._committing.release()

    def abandon(self) -> None:
        """Leave everything to the parent, in the child."""
        for each in self.spools():
            each.abandon()


def destination(settings: Settings) -> str:
    """Return a short name of the backend and of whose it is there: what waits for one must not reach another."""
    given = {name.lower(): value for name, value in settings.headers.items()}.get("authorization", "")
    scheme, _, credentials = given.partition(" ")
    user = b""
    with suppress(ValueError):
        user = b64decode(credentials).partition(b":")[0] if scheme.lower() == "basic" else b""
    return sha256(f"{settings.endpoint} {user.hex()}".encode()).hexdigest()[:8]


def _record(span: ReadableSpan, body: bytes) -> Record:
    trace = format_trace_id(span.context.trace_id) if span.context else ""
    return (span.end_time or time.time_ns()) / 1e9, trace, span.status.status_code is StatusCode.ERROR, body


def _in_share(trace: str, rate: float) -> bool:
    """Whether a trace is among the share that is kept: the same for everybody who asks."""
    return int(trace[-16:] or "0", 16) < round(rate * 2**64)


_processors: "WeakSet[SpoolProcessor]" = WeakSet()


def _follow_forks(processor: SpoolProcessor) -> None:
    _register_at_fork()
    _processors.add(processor)


@cache
def _register_at_fork() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lambda: [each.outbox.before_fork() for each in _processors],
            after_in_parent=lambda: [each.outbox.after_fork() for each in _processors],
            after_in_child=lambda: [each.renew() for each in _processors],
        )
