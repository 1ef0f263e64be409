"""Spans of our own: made, found, failed, told to others."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from telemetry import provider
from telemetry.context import TraceRef


@contextmanager
def span(name: str, kind: str = "CHAIN", **attributes: AttributeValue) -> Iterator[Span]:
    """Make a span that is current inside and ends with an honest status, whatever ends it.

    `kind` is OpenInference's: CHAIN, AGENT, TOOL, RETRIEVER, LLM …
    """
    with provider.tracer().start_as_current_span(
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
    """Record that something happened, at once: a child span of no length, since span events wait for their span."""
    provider.tracer().start_span(name, attributes=attributes).end()


def get_span() -> Span:
    """Return the current span; one that records nothing outside of any."""
    return trace.get_current_span()


def capture_exception(error: BaseException) -> None:
    """Make the current span a failed one, with the error's type, its message in one line and its stack."""
    fail(get_span(), error)


def current_trace() -> TraceRef | None:
    """Return the ids of the current trace, None outside of any or with tracing off."""
    return reference(get_span())


def reference(of: Span) -> TraceRef | None:
    """Return the ids of this span's trace, None where it has none."""
    context = of.get_span_context()
    if not context.is_valid:
        return None
    ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    return TraceRef(*ids, sampled=context.trace_flags.sampled)


def link_to(trace_ref: TraceRef | None) -> Sequence[Link]:
    """Return the link to that span, none without one."""
    if trace_ref is None:
        return ()
    flags = TraceFlags(TraceFlags.SAMPLED if trace_ref.sampled else TraceFlags.DEFAULT)
    ids = int(trace_ref.trace_id, 16), int(trace_ref.span_id, 16)
    return (Link(SpanContext(*ids, is_remote=True, trace_flags=flags)),)


@contextmanager
def untraced() -> Iterator[None]:
    """Make no span and send no trace header inside: for polling, and for telemetry's own traffic."""
    with suppress_instrumentation():
        yield


def fail(span: Span, error: BaseException) -> None:
    """Give the span the status that this error deserves; what only ended it early is no failure.

    The stack is told once in a trace, by the span that failed first; those above it have the line.
    """
    if not isinstance(error, Exception):
        span.set_attributes({"cancelled": True, "langfuse.observation.level": "WARNING"})
        return
    span.set_status(Status(StatusCode.ERROR, one_line(error)))
    if _is_news(error, span.get_span_context().trace_id):
        stack = "".join(traceback.format_exception(error))
        said = {"exception.type": type(error).__qualname__, "exception.message": str(error)}
        span.add_event("exception", {**said, "exception.stacktrace": stack})


def _is_news(error: Exception, trace_id: int) -> bool:
    known = getattr(error, "_told_in_trace", None) == trace_id
    with suppress(AttributeError):
        error._told_in_trace = trace_id  # pyright: ignore[reportAttributeAccessIssue] # noqa: SLF001 - weak references to exceptions are not possible
    return not known


def one_line(error: BaseException) -> str:
    """Return the error as one line: its type and the first line of what it says."""
    said = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__qualname__}: {said}" if said else type(error).__qualname__
