"""Heartbeats of a run: short spans in its trace while it runs, and the end of a turn whose process died."""

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
class LostTurn:
    """A turn, or an attempt at a background run, whose process died; times in seconds since 1970.

    `last_sign` is when the process last stored that it was alive, and `answer` what it had said by then. A turn may
    have ended in any way: `reason` is its error.
    """

    trace: TraceRef
    parent: TraceRef | None
    scope: Scope
    message: str
    began: float
    last_sign: float
    answer: str = ""
    attempt: int | None = None
    status: str = "lost"
    reason: str | None = "lost: its process died"


def close_as_lost(turn: LostTurn) -> None:
    """End the span that the dead process did not end, under its own id, at the process's last sign of life.

    Spans that the process has sent are below it. Nothing is sent for a turn that was not sampled. Returns when the
    span is on disk.
    """
    running = pipeline.active()
    if running is None or not turn.trace.sampled:
        return
    with handle_internal_errors("close a lost turn"):
        ended = ReadableSpan(
            "turn",
            context=_context_of(turn.trace),
            parent=_context_of(turn.parent) if turn.parent else None,
            resource=running.provider.resource,
            attributes=_last_words(turn),
            status=Status(StatusCode.ERROR, turn.reason) if turn.reason else Status(),
            start_time=round(turn.began * 1e9),
            end_time=round(turn.last_sign * 1e9),
        )
        end_span(running.provider, ended)
    written()


def written() -> None:
    """Return once the spans that have ended in this process are on disk, if there is a spool."""
    if processor := pipeline.get(SpoolProcessor):
        with handle_internal_errors("write spans"):
            processor.writer.write()


def _last_words(turn: LostTurn) -> Mapping[str, Any]:
    words = {**turn.scope.attributes, "openinference.span.kind": "AGENT", "turn.status": turn.status}
    if turn.attempt is None:
        texts = {"input.value": turn.message, "output.value": turn.answer}
        return {**words, **{key: text for key, text in texts.items() if text}}
    return {
        **words,
        "turn.attempt": turn.attempt,
        **({} if turn.parent else {"input.value": turn.message}),
        "turn.last_heartbeat": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(turn.last_sign)),
    }


def _context_of(trace: TraceRef | None) -> SpanContext:
    if trace is None:
        return SpanContext(0, 0, is_remote=True)
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)
