"""Spans in memory, for tests of traced code."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry.configure import activate, deactivate
from telemetry.otel.framework_runs import FrameworkRuns
from telemetry.otel.request_filter import RequestFilter
from telemetry.otel.scope_attributes import ScopeAttributesProcessor
from telemetry.pipeline import Pipeline
from telemetry.provider import build_provider
from telemetry.settings import Settings
from telemetry.testing.tree import span_tree


class Recorded(InMemorySpanExporter, SpanProcessor):
    """The finished spans of a test, and the names of the open ones."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[int, str] = {}
        self.ended_twice: list[str] = []

    @property
    def open(self) -> list[str]:
        """The names of the spans that have not ended."""
        return list(self._open.values())

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Note an open span."""
        self._open[span.get_span_context().span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        """Note that a span has ended."""
        assert span.context  # noqa: S101 - it was started
        if self._open.pop(span.context.span_id, None) is None:
            self.ended_twice.append(span.name)

    def settled(self, timeout_s: float = 30) -> Sequence[ReadableSpan]:
        """Return the finished spans once none is open; raise `AssertionError` if some stay open."""
        deadline = time.monotonic() + timeout_s
        while self._open:
            if time.monotonic() > deadline:
                raise AssertionError(f"these spans have not ended: {self.open}")
            time.sleep(0.01)
        return self.get_finished_spans()

    def tree(self, attributes: Sequence[str] = ()) -> str:
        """Return the finished spans as a tree, once none is open."""
        return span_tree(self.settled(), attributes)

    def shutdown(self) -> None:
        """Keep the recorded spans."""


@contextmanager
def recording(settings: Settings | None = None) -> Iterator[Recorded]:
    """Record spans inside in memory, with a provider of its own; the global provider does not change."""
    recorded = Recorded()
    requests = RequestFilter(SimpleSpanProcessor(recorded))
    chosen = settings or Settings.model_construct()
    provider = build_provider(chosen, "test", [ScopeAttributesProcessor(), FrameworkRuns(), requests, recorded])
    activate(Pipeline(provider), chosen, requests)
    try:
        yield recorded
    finally:
        deactivate()
        provider.shutdown()
