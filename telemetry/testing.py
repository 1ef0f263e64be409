"""What tests of traced code need: spans in memory, span trees as text, a receiver on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry.context import Stamper
from telemetry.provider import Pipeline, activate, build_provider, deactivate
from telemetry.quiet import Quiet
from telemetry.receiver import Receiver
from telemetry.settings import Settings
from telemetry.tree import span_tree

__all__ = ["InMemorySpanExporter", "Receiver", "recording", "span_tree"]


@contextmanager
def recording(settings: Settings | None = None) -> Iterator[InMemorySpanExporter]:
    """Trace what happens inside into memory, with a provider of its own; the global provider is left alone."""
    exporter = InMemorySpanExporter()
    quiet = Quiet(SimpleSpanProcessor(exporter))
    chosen = settings or Settings.model_construct()
    provider = build_provider(chosen, "test", [Stamper(), quiet])
    activate(Pipeline(provider, quiet), chosen)
    try:
        yield exporter
    finally:
        deactivate()
        provider.shutdown()
