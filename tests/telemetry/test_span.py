"""Spans that fail tell it once, in one line, with the stack apart."""

import asyncio
from contextlib import suppress

import pytest
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from telemetry.context import TraceRef
from telemetry.span import link_to
from telemetry.testing import Recorded


def exceptions(span: ReadableSpan) -> list[str]:
    return [str((event.attributes or {})["exception.message"]) for event in span.events if event.name == "exception"]


def test_the_stack_is_told_once(spans: Recorded) -> None:
    """The span that failed first has the stack; those above have the line; what handled it is not marked."""
    with telemetry.span("handled"), suppress(ValueError), telemetry.span("above"), telemetry.span("failing"):
        raise ValueError("first line\nsecond line")

    failing, above, handled = spans.settled()
    assert spans.tree() == "handled\n  above ERROR\n    failing ERROR"
    assert [each.status.description for each in (failing, above)] == ["ValueError: first line"] * 2
    assert exceptions(failing) == ["first line\nsecond line"]
    assert exceptions(above) == exceptions(handled) == []


def test_the_same_error_in_another_trace_is_news(spans: Recorded) -> None:
    """An error object that is raised again elsewhere has its stack there too."""
    error = ValueError("kept")
    for _ in range(2):
        with pytest.raises(ValueError, match="kept"), telemetry.span("failing"):
            raise error

    assert [exceptions(span) for span in spans.settled()] == [["kept"], ["kept"]]


def test_captured_anywhere(spans: Recorded) -> None:
    """`capture_exception` marks the current span, however deep the call; outside of any it does nothing."""

    def deep() -> None:
        telemetry.capture_exception(KeyError("missing"))
        telemetry.get_span().set_attribute("noted", True)

    with telemetry.span("work"):
        deep()
    deep()

    assert spans.tree(["noted"]) == "work ERROR noted=True"


def test_what_only_ends_early_is_no_failure(spans: Recorded) -> None:
    """A cancellation leaves a warning, not an error."""
    with pytest.raises(asyncio.CancelledError), telemetry.span("stopped"):
        raise asyncio.CancelledError

    assert spans.tree(["cancelled", "langfuse.observation.level"]) == (
        "stopped cancelled=True langfuse.observation.level=WARNING"
    )


def test_events_arrive_at_once(spans: Recorded) -> None:
    """An event is there while its span is still open."""
    with telemetry.span("long"):
        telemetry.event("halfway", step=1)
        assert [span.name for span in spans.get_finished_spans()] == ["halfway"]


def test_links() -> None:
    """A link names the span and whether it was sampled; nothing links to nothing."""
    (link,) = link_to(TraceRef("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True))

    assert f"{link.context.trace_id:032x} {link.context.span_id:016x}" == (
        "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331"
    )
    assert link.context.trace_flags.sampled
    assert link_to(None) == ()
