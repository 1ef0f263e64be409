"""The way of ended spans from memory to the spool: enqueued by whoever ends them, written by a thread."""

import sqlite3
import threading
import time
from base64 import b64decode
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, format_trace_id

from telemetry import failures
from telemetry.delivery.deliver import Deliverer
from telemetry.delivery.post import Poster
from telemetry.delivery.spool import DeadLetter
from telemetry.delivery.spools import GROUP, Record, Spools
from telemetry.settings import Settings
from telemetry.shorten import SHORTENED

# Past so many spans in memory whoever ends one writes some himself.
MOST_PENDING = 2048
# One commit: besides so many rows, so many bytes, or so long to prepare them.
GROUP_BYTES = 1_000_000
GROUP_S = 0.02
# Spans come in swarms: one commit, one search for secrets and one change of threads for those of these seconds cost
# hardly more than those for the first.
GATHER_S = 0.02
# How long a shutdown waits for each next answer of a backend that answers.
FAREWELL_S = 2.0
# How long the end of a turn waits for its verdict to be on disk.
VERDICT_S = 2.0
LAGS = 2048

_SHORTENED = SHORTENED.encode()
_REDACTED = b"[redacted"

Prepare = Callable[[Sequence[ReadableSpan]], Sequence[bytes]]


@dataclass
class Verdict:
    """The question whether a trace is kept, on its way through the queue behind the spans that ended before it."""

    trace: str
    wanted: bool | None
    kept: bool = True
    there: bool = True
    known: threading.Event = field(default_factory=threading.Event)


class Outbox:
    """The ended spans of one process; its threads start with the first one."""

    def __init__(self, settings: Settings, prepare: Prepare, interval_s: float) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.lags: deque[float] = deque(maxlen=LAGS)
        self.spools = Spools(settings, destination(settings))
        self._prepare = prepare
        self._pending: deque[ReadableSpan | Verdict] = deque()
        self._wake = threading.Event()
        self._closed = False
        self._started = False
        self._writer = threading.Thread(target=self._write, name="telemetry-spool", daemon=True)
        self.deliverer = Deliverer(
            Poster(settings),
            self.spools.all,
            self.spools.tick,
            self.spools.broken,
            most_bytes=settings.max_request_bytes,
            interval_s=interval_s,
        )

    def start(self) -> None:
        """Open the file and start the threads, once."""
        with self.spools.lock:
            if self._started:
                return
            self._started = True
            self.spools.open()
            self._writer.start()
            self.deliverer.start()

    def put(self, span: ReadableSpan) -> None:
        """Take a span that has ended."""
        if self._closed:
            self.spools.dropped["after the end"] += 1
        else:
            self._enqueue(span)

    def take(self, records: Sequence[Record]) -> None:
        """Write what was prepared elsewhere, at once."""
        self.start()
        with self.spools.lock:
            self.spools.store(records)
        self.deliverer.wake()

    def decide(self, trace: str, wanted: bool | None) -> bool:
        """Return whether the trace is kept, as soon as that is on disk; where it cannot be told in time, it is.

        `wanted` is what is known already; None asks for the rule: errors among its spans, else the set share.
        """
        if self.settings.keep_rate is None or self._closed:
            return True
        verdict = self._ask(Verdict(trace, wanted))
        if not verdict.known.is_set():
            self._enqueue(Verdict(trace, wanted=True))
            return True
        return verdict.kept

    def bring_back(self, trace: str) -> bool:
        """Return whether spans of the trace were still there, which are kept from now on."""
        if self.settings.keep_rate is None or self._closed:
            return False
        return self._ask(Verdict(trace, wanted=True)).there

    @property
    def pending(self) -> int:
        """How many spans are in memory only, not written anywhere."""
        return len(self._pending)

    def requeue(self, letters: Sequence[DeadLetter]) -> None:
        """Put dead letters behind what waits."""
        self.spools.requeue(letters)
        self.deliverer.wake()

    def write(self) -> None:
        """Write what is pending; what had ended before is then on disk."""
        self._commit_all()

    def flush(self, seconds: float) -> bool:
        """Write what is pending; return whether all that is this process's own was accepted in time."""
        if not self._started:
            return True
        self._commit_all()
        return self.deliverer.drain(self.spools.own(), seconds)

    def close(self) -> None:
        """Write what is pending, deliver while the backend answers, stop."""
        if self._closed:
            return
        self._closed = True
        if not self._started:
            return
        self._wake.set()
        self.flush(FAREWELL_S)
        self.deliverer.stop(0.1 if self.deliverer.backend.is_down else FAREWELL_S)
        self._writer.join(FAREWELL_S)
        self._commit_all()
        self.spools.close()

    def _enqueue(self, item: ReadableSpan | Verdict) -> None:
        self._pending.append(item)
        if not self._started:
            self.start()
        if self.settings.spool_write_through or len(self._pending) > MOST_PENDING:
            self._commit()
        elif not self._wake.is_set():
            self._wake.set()

    def _ask(self, verdict: Verdict) -> Verdict:
        self._enqueue(verdict)
        verdict.known.wait(VERDICT_S)
        return verdict

    def _write(self) -> None:
        while not self._closed:
            self._wake.wait()
            time.sleep(GATHER_S)
            self._wake.clear()
            self._commit_all()

    def _commit_all(self) -> None:
        while self._commit():
            pass

    def _commit(self) -> int:
        """Write one group of what is pending, oldest first, or pass one verdict; returns how much that was."""
        with self.spools.lock:
            if self._pending and isinstance(first := self._pending[0], Verdict):
                self._pending.popleft()
                self._pass(first)
                return 1
            spans = self._group()
        if spans:
            self.deliverer.wake()
        return spans

    def _group(self) -> int:
        records: list[Record] = []
        size, deadline = 0, time.perf_counter() + GROUP_S
        while len(records) < GROUP and size < GROUP_BYTES and time.perf_counter() < deadline:
            spans = self._next_spans()
            if not spans:
                break
            records += map(_record, spans, bodies := self._prepare(spans))
            size += sum(map(len, bodies))
        if records:
            self.spools.store(records)
            self._measure(records)
        return len(records)

    def _next_spans(self) -> list[ReadableSpan]:
        spans: list[ReadableSpan] = []
        while self._pending and len(spans) < GROUP and not isinstance(span := self._pending[0], Verdict):
            spans.append(span)
            self._pending.popleft()
        return spans

    def _measure(self, records: Sequence[Record]) -> None:
        now = time.time()
        self.lags.extend(now - record.at for record in records)
        self.counts["shortened"] += sum(_SHORTENED in record.body for record in records)
        self.counts["redacted"] += sum(_REDACTED in record.body for record in records)

    def _pass(self, verdict: Verdict) -> None:
        try:
            verdict.there = self.spools.has(verdict.trace)
            verdict.kept = self.spools.rule(verdict.trace, verdict.wanted)
        except sqlite3.DatabaseError as error:
            failures.count("write a verdict", error)
            return
        verdict.known.set()
        self.deliverer.wake()


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
    ended = (span.end_time or time.time_ns()) / 1e9
    return Record(ended, trace, span.status.status_code is StatusCode.ERROR, body)
