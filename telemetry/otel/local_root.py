"""Find the span at the root of a trace's part in this process."""

from weakref import WeakKeyDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import Span as AnySpan
from opentelemetry.trace import get_current_span

from telemetry import pipeline


class _Roots(WeakKeyDictionary[Span, Span]):
    """The local root of each living span that has a parent in this process."""


def note_root(span: Span, parent_context: Context | None) -> None:
    """Record the local root of a span when it starts."""
    if parent := recorded_span(get_current_span(parent_context)):
        pipeline.shared(_Roots)[span] = local_root(parent) or parent


def local_root(span: AnySpan) -> Span | None:
    """Return the first span of a span's trace in this process; None for a span that is not recorded."""
    recorded = recorded_span(span)
    return pipeline.shared(_Roots).get(recorded, recorded) if recorded else None


def recorded_span(span: AnySpan) -> Span | None:
    """Return the SDK's span, which Logfire wraps in its own; None for a span that is not recorded."""
    inner = span if isinstance(span, Span) else getattr(span, "span", None)
    return inner if isinstance(inner, Span) else None


def is_left_out(span: AnySpan) -> bool:
    """Return whether what is below this span is neither sent nor counted, so that recording it is not worth its cost.

    A span that is recorded for metrics only is not left out.
    """
    context = span.get_span_context()
    return context.is_valid and not context.trace_flags.sampled and not span.is_recording()
