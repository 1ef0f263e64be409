"""Create spans, get the current one, and set the status for an error."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.instrumentation import utils as otel_utils
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from telemetry import pipeline
from telemetry.context import TraceRef
from telemetry.lru_cache import LruCache

# The status message of a cancelled span, by the cause of its turn's cancellation.
_CAUSES = {
    "cancel": "cancelled on request",
    "disconnect": "cancelled: the client disconnected",
    "shutdown": "cancelled: the service stopped",
    "fenced": "cancelled: another process has taken over",
    "timeout": "cancelled: the turn took too long",
}


@contextmanager
def span(name: str, kind: str = "CHAIN", **attributes: AttributeValue) -> Iterator[Span]:
    """Create a span that is current inside; it always ends, with the status of the body's outcome.

    Args:
        name: the span's name.
        kind: OpenInference's kind: CHAIN, AGENT, TOOL, RETRIEVER, LLM …
        attributes: further attributes of the span, under these keys.

    An exception in the body is recorded and raised.

    Example:
        >>> import telemetry
        >>> with telemetry.span("look up", kind="TOOL", **{"input.value": "sampling"}) as span:
        ...     span.set_attribute("output.value", "found")
    """
    with pipeline.tracer().start_as_current_span(
        name,
        attributes={"openinference.span.kind": kind, **attributes},
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except BaseException as error:
            fail(made, error)
            raise


def event(name: str, **attributes: AttributeValue) -> None:
    """Record that something happened, as a child span of zero duration, which is sent at once, unlike a span event.

    Args:
        name: the span's name.
        attributes: attributes of the span, under these keys.

    Example:
        >>> import telemetry
        >>> telemetry.event("cache missed", key="sampling")
    """
    pipeline.tracer().start_span(name, attributes=attributes).end()


def get_span() -> Span:
    """Return the current span; if there is none, one that records nothing.

    Example:
        >>> import telemetry
        >>> telemetry.get_span().set_attribute("team", "blue")
    """
    return trace.get_current_span()


def capture_exception(error: BaseException) -> None:
    """Set the current span's status to failed, with the error's type, its message in one line and its stack.

    Args:
        error: the exception; one that is not an `Exception`, such as a cancellation, marks the span as cancelled.

    Example:
        >>> import telemetry
        >>> try:
        ...     {}["missing"]
        ... except KeyError as error:
        ...     telemetry.capture_exception(error)
    """
    fail(get_span(), error)


def current_trace() -> TraceRef | None:
    """Return the ids of the current trace; None if there is none, or with tracing off.

    Example:
        >>> import telemetry
        >>> trace = telemetry.current_trace()
        >>> trace.trace_id if trace else "untraced"
        'untraced'
    """
    return reference(get_span())


def reference(of: Span) -> TraceRef | None:
    """Return the ids of this span's trace, None if it has none."""
    context = of.get_span_context()
    if not context.is_valid:
        return None
    ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    return TraceRef(*ids, sampled=context.trace_flags.sampled)


def caller_of(local_root: Span) -> TraceRef | None:
    """Return the parent of this span, which is the first of its trace in this process; None if it has none."""
    parent = getattr(local_root, "parent", None)
    return reference(NonRecordingSpan(parent)) if isinstance(parent, SpanContext) else None


def link_to(trace_ref: TraceRef | None) -> Sequence[Link]:
    """Return a link to that span; no link without a span."""
    if trace_ref is None:
        return ()
    flags = TraceFlags(TraceFlags.SAMPLED if trace_ref.sampled else TraceFlags.DEFAULT)
    ids = int(trace_ref.trace_id, 16), int(trace_ref.span_id, 16)
    return (Link(SpanContext(*ids, is_remote=True, trace_flags=flags)),)


@contextmanager
def suppress_instrumentation() -> Iterator[None]:
    """Create no spans and send no trace headers inside: for polling, and for telemetry's own traffic.

    Example:
        >>> import telemetry
        >>> with telemetry.suppress_instrumentation(), telemetry.span("not recorded"):
        ...     pass
    """
    with otel_utils.suppress_instrumentation():
        yield


def fail(span: Span, error: BaseException) -> None:
    """Set the span's status for this error; a cancellation is not a failure.

    The stack is recorded once in a trace, on the span that failed first; the spans above it get one line.
    """
    if not isinstance(error, Exception):
        mark_cancelled(span)
        return
    line = one_line(error)
    span.set_status(Status(StatusCode.ERROR, line))
    if _is_new(error, line, span.get_span_context().trace_id):
        stack = "".join(traceback.format_exception(error))
        attributes = {"exception.type": _qualified_name(error), "exception.message": str(error)}
        span.add_event("exception", {**attributes, "exception.stacktrace": stack})


def mark_cancelled(span: Span, cause: str = "") -> None:
    """Mark a span whose work was cancelled, with the cause; this is not an error."""
    level = {"langfuse.observation.level": "WARNING", "langfuse.observation.status_message": cancellation(cause)}
    span.set_attributes({"cancelled": True, **level})


def cancellation(cause: str) -> str:
    """Return the cause of a cancellation in one line; an unknown cause is included unchanged."""
    return _CAUSES.get(cause, f"cancelled: {cause}" if cause else "cancelled")


def _qualified_name(error: Exception) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _ReportedErrors(LruCache[tuple[int, int, type, int], bool]):
    """The latest errors of this process whose stack has been recorded in their trace."""

    def __init__(self) -> None:
        super().__init__(1024)


def _is_new(error: Exception, text: str, trace_id: int) -> bool:
    # An attribute on the exception would change the program's object, and a reference would keep its frames alive. An
    # id may be reused: type and text tell the exceptions apart.
    key = (trace_id, id(error), type(error), hash(text))
    reported = pipeline.shared(_ReportedErrors)
    known = reported.get(key) is not None
    reported.put(key, True)
    return not known


def one_line(error: BaseException) -> str:
    """Return the error as one line: its type and the first line of its message."""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__qualname__}: {line}" if line else type(error).__qualname__
