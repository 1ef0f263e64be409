"""What tests of traced code need: spans in memory, span trees as text, a receiver on loopback."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry.context import Stamper
from telemetry.provider import Pipeline, activate, build_provider, deactivate
from telemetry.quiet import Quiet
from telemetry.receiver import Receiver
from telemetry.settings import Settings
from telemetry.tree import span_tree

__all__ = ["Receiver", "Recorded", "recording", "span_tree"]


class Recorded(InMemorySpanExporter, SpanProcessor):
    """The spans of a test: those that have ended, and the names of those that have not."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[int, str] = {}
        self.ended_twice: list[str] = []

    @property
    def open(self) -> list[str]:
        """The names of the spans that have not ended yet."""
        return list(self._open.values())

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Note that it is open."""
        self._open[span.get_span_context().span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        """Note that it has ended."""
        assert span.context  # noqa: S101 - it was started
        if self._open.pop(span.context.span_id, None) is None:
            self.ended_twice.append(span.name)

    def settled(self, timeout_s: float = 30) -> Sequence[ReadableSpan]:
        """Return the finished spans once none is open; raises if some stay open."""
        deadline = time.monotonic() + timeout_s
        while self._open:
            if time.monotonic() > deadline:
                raise AssertionError(f"these spans were left open: {self.open}")
            time.sleep(0.01)
        return self.get_finished_spans()

    def tree(self, attributes: Sequence[str] = ()) -> str:
        """Return the finished spans as a tree, once none is open."""
        return span_tree(self.settled(), attributes)

    def shutdown(self) -> None:
        """Keep what was recorded."""


@contextmanager
def recording(settings: Settings | None = None) -> Iterator[Recorded]:
    """Trace what happens inside into memory, with a provider of its own; the global provider is left alone."""
    recorded = Recorded()
    quiet = Quiet(SimpleSpanProcessor(recorded))
    chosen = settings or Settings.model_construct()
    provider = build_provider(chosen, "test", [Stamper(), quiet, recorded])
    activate(Pipeline(provider, quiet), chosen)
    try:
        yield recorded
    finally:
        deactivate()
        provider.shutdown()
