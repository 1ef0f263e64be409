"""Write finished spans to the spool: `on_end` enqueues them in memory, and a thread writes them.

This file has the span processor, its writer, and what both do when the process forks.
"""

import sqlite3
import threading
import time
from base64 import b64decode
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import StatusCode, format_trace_id

from telemetry import internal_errors
from telemetry.backends.langfuse_media import LangfuseMedia
from telemetry.delivery.backoff import BackendState
from telemetry.delivery.batches import SpanBatches
from telemetry.delivery.forks import watch_forks
from telemetry.delivery.http import OtlpClient
from telemetry.delivery.media import MediaBackend, MediaBatches, MediaRecords
from telemetry.delivery.sender import Sender
from telemetry.delivery.spool import MAX_GROUP, Record, Spool
from telemetry.delivery.store import MEDIA, SPAN, DeadLetter, RowsOf, SpoolStore
from telemetry.export.media import Attachment
from telemetry.export.otlp import EncodedSpan
from telemetry.export.redact import SpanRedactor
from telemetry.export.stages import build_redact_stage
from telemetry.export.truncate import SHORTENED
from telemetry.settings import Settings

# With more spans than this in memory, the thread that ends one writes some itself.
MAX_PENDING = 2048
# Further limits of one commit: bytes, and the time to prepare them.
GROUP_BYTES = 1_000_000
GROUP_S = 0.02
# Spans come in bursts: one commit, one redaction pass and one change of threads for all spans of this period cost
# hardly more than for the first one. Twice as long saves a tenth of a millisecond a turn.
GATHER_S = 0.01
# How long a shutdown waits for each further response of the backend.
SHUTDOWN_TIMEOUT_S = 2.0
# How long the end of a turn waits for the sampling decision to be on disk.
DECISION_TIMEOUT_S = 2.0
MAX_LAGS = 2048
# How often to look for files that dead processes have left.
MEDIA_IDLE_S = 5.0

_SHORTENED = SHORTENED.encode()
_REDACTED = b"[redacted"

Prepare = Callable[[Sequence[ReadableSpan]], Sequence[bytes]]


class SpoolProcessor(SpanProcessor):
    """Passes each sampled span that ends to the writer of the current process."""

    def __init__(self, settings: Settings, prepare: Prepare, interval_s: float = 0.5) -> None:
        self._settings = settings
        self._prepare = prepare
        self._interval_s = interval_s
        self.writer = SpanWriter(settings, prepare, interval_s)
        watch_forks(self)

    def on_end(self, span: ReadableSpan) -> None:
        """Enqueue the span."""
        if span.context and span.context.trace_flags.sampled:
            self.writer.put(span)

    @cached_property
    def redact_stage(self) -> SpanRedactor:
        """The stage that redacts spans of other processes; built at the first one, since most services accept none."""
        return replace(build_redact_stage(self._settings), keeps_pseudonyms=True)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write pending spans, and return whether the backend has accepted them; do not wait if it is down."""
        return self.writer.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Write pending spans, send what can be sent, and leave the rest to the next process."""
        self.writer.close()

    def reopen(self) -> bool:
        """Start again after a shutdown; return False if there was none."""
        if not self.writer.is_closed:
            return False
        self.writer = SpanWriter(self._settings, self._prepare, self._interval_s)
        self.writer.start()
        return True

    def before_fork(self) -> None:
        """Pause until the fork is over."""
        self.writer.spool.before_fork()

    def after_fork_in_parent(self) -> None:
        """Continue."""
        self.writer.spool.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start again without the pending spans, which belong to the parent."""
        self.writer.spool.after_fork_in_child()
        self.writer = SpanWriter(self._settings, self._prepare, self._interval_s)


@dataclass
class _SamplingDecision:
    """A request for a decision about a trace, queued behind the spans that ended before it."""

    trace: str
    wanted: bool | None
    kept: bool = True
    found: bool = True
    made: threading.Event = field(default_factory=threading.Event)


class SpanWriter:
    """Writes the ended spans of one process to its spool; its threads start with the first one."""

    def __init__(self, settings: Settings, prepare: Prepare, interval_s: float) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.lags: deque[float] = deque(maxlen=MAX_LAGS)
        self.spool = Spool(settings, destination(settings))
        self.backend = BackendState(settings.max_request_bytes)
        self.sender = Sender(
            "telemetry-delivery",
            self._present_batches,
            self.backend,
            maintain=self.spool.maintain,
            gather_s=interval_s,
        )
        self._client = OtlpClient(settings)
        self._batches: dict[SpoolStore, SpanBatches] = {}
        # Files have a thread of their own, so that no upload delays spans.
        self.media = MediaDelivery(settings, self.spool) if settings.sends_media else None
        self._prepare = prepare
        self._pending: deque[ReadableSpan | _SamplingDecision] = deque()
        self._wake = threading.Event()
        self._closed = False
        self._gathered = threading.Event()
        self._started = False
        self._thread = threading.Thread(target=self._run, name="telemetry-spool", daemon=True)

    def start(self) -> None:
        """Open the file and start the threads, once."""
        with self.spool.lock:
            if self._started:
                return
            self._started = True
            self.spool.open()
            self._thread.start()
            self.sender.start()
            if self.media:
                self.media.sender.start()

    def put(self, item: "ReadableSpan | _SamplingDecision") -> None:
        """Enqueue a span that has ended."""
        if self._closed:
            self.spool.dropped["after the end"] += 1
            return
        self._pending.append(item)
        if not self._started:
            self.start()
        if self.settings.spool_write_through or len(self._pending) > MAX_PENDING:
            self._write_next()
        elif not self._wake.is_set():
            self._wake.set()

    def write_records(self, records: Sequence[Record], attachments: Sequence[Attachment] = ()) -> None:
        """Write records that are already prepared, and the files of their spans, without queueing them."""
        self.start()
        with self.spool.lock:
            self._write_records(records, attachments)
        self.sender.wake()

    def keep_trace(self, trace: str, wanted: bool | None) -> bool:
        """Return whether the trace is kept, once the decision is on disk; True if that takes too long.

        `wanted` is an earlier decision; None applies the rule: keep traces with errors, and the share of the others.
        """
        if self.settings.keep_rate is None or self._closed:
            return True
        decision = self._decide(trace, wanted)
        if not decision.made.is_set():
            self.put(_SamplingDecision(trace, wanted=True))
            return True
        return decision.kept

    def restore_trace(self, trace: str) -> bool:
        """Keep the spans of a dropped trace; return whether any were left."""
        if self.settings.keep_rate is None or self._closed:
            return False
        return self._decide(trace, wanted=True).found

    @property
    def is_closed(self) -> bool:
        """Whether the writer has stopped, so that further spans are dropped."""
        return self._closed

    @property
    def pending(self) -> int:
        """The number of spans that are not written yet."""
        return len(self._pending)

    def requeue(self, letters: Sequence[DeadLetter]) -> None:
        """Append dead letters to the waiting rows."""
        self.spool.requeue(letters)
        self.sender.wake()

    def write(self) -> None:
        """Write pending spans: all that ended before the call are on disk when it returns."""
        while self._write_next():
            pass

    def flush(self, seconds: float) -> bool:
        """Write pending spans; return whether all rows of this process were accepted in time."""
        if not self._started:
            return True
        self.write()
        stores = self.spool.own_stores()
        accepted = self.sender.drain([RowsOf(store, SPAN) for store in stores], seconds)
        return (self.media is None or self.media.flush(stores, seconds)) and accepted

    def close(self) -> None:
        """Write pending spans, send as long as the backend responds, and stop."""
        if self._closed:
            return
        self._closed = True
        if not self._started:
            return
        self._wake.set()
        self._gathered.set()
        self.flush(SHUTDOWN_TIMEOUT_S)
        self.sender.stop(0.1 if self.backend.is_down else SHUTDOWN_TIMEOUT_S)
        if self.media:
            self.media.stop()
        self._thread.join(SHUTDOWN_TIMEOUT_S)
        self.write()
        self.spool.close()

    def _present_batches(self) -> list[SpanBatches]:
        """Return the batches of each store; they keep their state as long as the store exists."""
        made = self._batches
        unreadable = self.spool.replace_unreadable
        self._batches = {
            store: made.get(store) or SpanBatches(store, self.backend, self._client.post, unreadable)
            for store in self.spool.stores()
        }
        return list(self._batches.values())

    def _decide(self, trace: str, wanted: bool | None) -> _SamplingDecision:
        decision = _SamplingDecision(trace, wanted)
        self.put(decision)
        decision.made.wait(DECISION_TIMEOUT_S)
        return decision

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            # Not time.sleep, which tests of a program may have patched.
            self._gathered.wait(GATHER_S)
            self._wake.clear()
            self.write()

    def _write_next(self) -> int:
        """Write one group of pending spans, oldest first, or make one decision; return the number of queue entries."""
        with self.spool.lock:
            if self._pending and isinstance(first := self._pending[0], _SamplingDecision):
                self._pending.popleft()
                self._make(first)
                return 1
            written = self._write_group()
        if written:
            self.sender.wake()
        return written

    def _write_group(self) -> int:
        records: list[Record] = []
        attachments: list[Attachment] = []
        size, deadline = 0, time.perf_counter() + GROUP_S
        while len(records) < MAX_GROUP and size < GROUP_BYTES and time.perf_counter() < deadline:
            spans: list[ReadableSpan] = []
            while (
                self._pending and len(spans) < MAX_GROUP and not isinstance(span := self._pending[0], _SamplingDecision)
            ):
                spans.append(span)
                self._pending.popleft()
            if not spans:
                break
            records += map(_record, spans, bodies := self._prepare(spans))
            size += sum(map(len, bodies))
            attachments += [each for body in bodies if isinstance(body, EncodedSpan) for each in body.attachments]
        if records:
            self._write_records(records, attachments)
            now = time.time()
            self.lags.extend(now - record.at for record in records)
            self.counts["shortened"] += sum(_SHORTENED in record.body for record in records)
            self.counts["redacted"] += sum(_REDACTED in record.body for record in records)
        return len(records)

    def _write_records(self, records: Sequence[Record], attachments: Sequence[Attachment]) -> None:
        # Files first: a span on disk refers to none that is lost with the process.
        if self.media and attachments:
            self.media.write(attachments)
        self.spool.write(records)

    def _make(self, decision: _SamplingDecision) -> None:
        try:
            decision.found = self.spool.has(decision.trace)
            decision.kept = self.spool.decide(decision.trace, decision.wanted)
        except sqlite3.DatabaseError as error:
            internal_errors.record("write a sampling decision", error)
            return
        decision.made.set()
        self.sender.wake()


class MediaDelivery:
    """The files of spans on their way to the backend, from the same spool."""

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self.state = BackendState()
        self.sender = Sender("telemetry-media", self._present_batches, self.state, idle_s=MEDIA_IDLE_S)
        self._spool = spool
        self._records = MediaRecords(by_trace=settings.keep_rate is not None)
        self._backend: MediaBackend = LangfuseMedia(settings)
        self._batches: dict[SpoolStore, MediaBatches] = {}

    def write(self, attachments: Sequence[Attachment]) -> None:
        """Write files to the spool."""
        dropped = self._spool.dropped["too many bytes of files"]
        for record in self._records.records(attachments, time.time()):
            self._spool.write([record], MEDIA)
        if self._spool.dropped["too many bytes of files"] > dropped:
            self._records.forget()
        self.sender.wake()

    def flush(self, stores: Sequence[SpoolStore], seconds: float) -> bool:
        """Return whether all files were accepted in time."""
        return self.sender.drain([RowsOf(store, MEDIA) for store in stores], seconds)

    def stop(self) -> None:
        """Stop the thread; what is left stays in the spool."""
        self.sender.stop(0.1 if self.state.is_down else SHUTDOWN_TIMEOUT_S)

    def _present_batches(self) -> list[MediaBatches]:
        made = self._batches
        unreadable = self._spool.replace_unreadable
        self._batches = {
            store: made.get(store) or MediaBatches(store, self._backend, self.state, unreadable)
            for store in self._spool.stores()
        }
        return list(self._batches.values())


def destination(settings: Settings) -> str:
    """Return a short name for the backend and the account, so that spans for one never reach another."""
    header = {name.lower(): value for name, value in settings.headers.items()}.get("authorization", "")
    scheme, _, credentials = header.partition(" ")
    user = b""
    with suppress(ValueError):
        user = b64decode(credentials).partition(b":")[0] if scheme.lower() == "basic" else b""
    return sha256(f"{settings.endpoint} {user.hex()}".encode()).hexdigest()[:8]


def _record(span: ReadableSpan, body: bytes) -> Record:
    trace = format_trace_id(span.context.trace_id) if span.context else ""
    ended = (span.end_time or time.time_ns()) / 1e9
    return Record(ended, trace, span.status.status_code is StatusCode.ERROR, bytes(body))
