"""Heartbeats of a run: short spans in its trace while it runs, and the end of an attempt whose process died."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry import pipeline
from telemetry.context import Scope, TraceRef
from telemetry.delivery.writer import SpoolProcessor
from telemetry.internal_errors import handle_internal_errors
from telemetry.otel.sdk_internals import end_span

Sign = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]


class Heartbeat:
    """The heartbeats of one attempt: each status once, and `running` at most once per interval."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last = ""
        self._next = 0.0

    def beat(self, status: Sign, **progress: AttributeValue) -> None:
        """Create a span of zero duration below the current one, unless the status was sent within the interval."""
        if status == self._last and time.monotonic() < self._next:
            return
        self._last, self._next = status, time.monotonic() + self._interval_s
        attributes = {"status": status, **{f"progress.{name}": value for name, value in progress.items()}}
        with handle_internal_errors("send a heartbeat"):
            pipeline.tracer().start_span("heartbeat", attributes=attributes).end()


@contextmanager
def attach_span(trace: TraceRef | None) -> Iterator[None]:
    """Start spans inside below this span, which may belong to another process; with None they start a new trace."""
    token = otel.attach(set_span_in_context(NonRecordingSpan(_context_of(trace)), otel.Context()))
    try:
        yield
    finally:
        otel.detach(token)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt whose process died; times in seconds since 1970."""

    trace: TraceRef
    parent: TraceRef | None
    scope: Scope
    message: str
    began: float
    last_beat: float
    attempt: int


def close_as_lost(attempt: Attempt) -> None:
    """End the span that the dead process did not end, under its own id, at the attempt's last heartbeat.

    Spans that the process has sent are below it. Nothing is sent for an attempt that was not sampled. Returns when the
    span is on disk.
    """
    running = pipeline.active()
    if running is None or not attempt.trace.sampled:
        return
    with handle_internal_errors("close a lost attempt"):
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
        end_span(running.provider, ended)
    written()


def written() -> None:
    """Return once the spans that have ended in this process are on disk, if there is a spool."""
    if processor := pipeline.get(SpoolProcessor):
        with handle_internal_errors("write spans"):
            processor.writer.write()


def _last_words(attempt: Attempt) -> Mapping[str, Any]:
    return {
        **attempt.scope.attributes,
        "openinference.span.kind": "AGENT",
        "turn.status": "lost",
        "turn.attempt": attempt.attempt,
        **({} if attempt.parent else {"input.value": attempt.message}),
        "turn.last_heartbeat": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(attempt.last_beat)),
    }


def _context_of(trace: TraceRef | None) -> SpanContext:
    if trace is None:
        return SpanContext(0, 0, is_remote=True)
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)
