"""Spans of our own: made, found, failed, told to others."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from telemetry import langfuse, provider


@dataclass(frozen=True)
class TraceRef:
    """The trace that the current span belongs to: ids in lower-case hex."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def url(self) -> str | None:
        """The page that shows it, None until the backend has told where, or if it is not recorded."""
        return langfuse.trace_url(self.trace_id) if self.sampled else None


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


@contextmanager
def untraced() -> Iterator[None]:
    """Make no span and send no trace header inside: for polling, and for telemetry's own traffic."""
    with suppress_instrumentation():
        yield


def fail(span: Span, error: BaseException) -> None:
    """Give the span the status that this error deserves; what only ended it early is no failure."""
    if not isinstance(error, Exception):
        span.set_attributes({"cancelled": True, "langfuse.observation.level": "WARNING"})
        return
    kind, stack = type(error).__qualname__, "".join(traceback.format_exception(error))
    span.set_status(Status(StatusCode.ERROR, one_line(error)))
    span.add_event(
        "exception", {"exception.type": kind, "exception.message": str(error), "exception.stacktrace": stack}
    )


def one_line(error: BaseException) -> str:
    """Return the error as one line: its type and the first line of what it says."""
    said = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__qualname__}: {said}" if said else type(error).__qualname__
