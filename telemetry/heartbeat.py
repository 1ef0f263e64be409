"""Signs of life of a run: short spans in its trace while it runs, and an end for an attempt that died."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry import provider
from telemetry.context import Scope, TraceRef
from telemetry.failures import contained

Sign = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]


class Heartbeat:
    """The signs of one attempt: each status once, and `running` at most once in an interval."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last = ""
        self._next = 0.0

    def beat(self, status: Sign, **progress: AttributeValue) -> None:
        """Make a span of no length below the current one, unless the same was said just now."""
        if status == self._last and time.monotonic() < self._next:
            return
        self._last, self._next = status, time.monotonic() + self._interval_s
        attributes = {"status": status, **{f"progress.{name}": value for name, value in progress.items()}}
        with contained("tell a heartbeat"):
            provider.tracer().start_span("heartbeat", attributes=attributes).end()


@contextmanager
def continued(trace: TraceRef | None) -> Iterator[None]:
    """What begins inside belongs to this trace, below this span, whichever process that was in; None begins anew."""
    token = otel.attach(set_span_in_context(NonRecordingSpan(_context_of(trace)), otel.Context()))
    try:
        yield
    finally:
        otel.detach(token)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What is known of an attempt whose process died; times in seconds since 1970."""

    trace: TraceRef
    parent: TraceRef | None
    scope: Scope
    began: float
    last_beat: float
    attempt: int


def close_as_lost(attempt: Attempt) -> None:
    """End the span that the dead process never ended, under its own id, at the attempt's last sign of life.

    What it had sent already hangs below. Nothing is sent for an attempt that was not sampled. It is on disk then.
    """
    running = provider.pipeline()
    if running is None or not attempt.trace.sampled:
        return
    with contained("close a lost attempt"):
        ended = ReadableSpan(
            "turn",
            context=_context_of(attempt.trace),
            parent=_context_of(attempt.parent) if attempt.parent else None,
            resource=running.provider.resource,
            attributes=_last_words(attempt),
            status=Status(StatusCode.ERROR, "lost: its process died"),
            start_time=round(attempt.began * 1e9),
            end_time=round(attempt.last_beat * 1e9),
        )
        running.provider._active_span_processor.on_end(ended)  # noqa: SLF001 - the SDK makes no span with a given id
    written()


def written() -> None:
    """Return once the spans that have ended in this process are on disk, where there is a spool."""
    running = provider.pipeline()
    if running and running.spooling:
        with contained("write spans"):
            running.spooling.outbox.write()


def _last_words(attempt: Attempt) -> Mapping[str, Any]:
    return {
        **attempt.scope.stamps,
        "openinference.span.kind": "AGENT",
        "turn.status": "lost",
        "turn.attempt": attempt.attempt,
        "turn.last_heartbeat": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(attempt.last_beat)),
    }


def _context_of(trace: TraceRef | None) -> SpanContext:
    if trace is None:
        return SpanContext(0, 0, is_remote=True)
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)
