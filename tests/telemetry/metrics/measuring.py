"""What the metrics of a test are, read from the SDK's own reader."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from telemetry import pipeline
from telemetry.configure import activate, deactivate
from telemetry.export.stages import build_redactor
from telemetry.metrics.figures import observe
from telemetry.metrics.instruments import Instruments
from telemetry.metrics.spans import SpanMetrics
from telemetry.otel.framework_runs import FrameworkRuns
from telemetry.otel.request_filter import RequestFilter
from telemetry.otel.scope_attributes import ScopeAttributesProcessor
from telemetry.pipeline import Pipeline
from telemetry.provider import build_provider
from telemetry.settings import Settings
from telemetry.testing import Recorded


class Measured:
    """The metrics of a test so far, and its spans."""

    def __init__(self, spans: Recorded, reader: InMemoryMetricReader, provider: TracerProvider) -> None:
        self.spans = spans
        self.provider = provider
        self._reader = reader

    def metrics(self) -> dict[str, Metric]:
        """Every metric by its name."""
        data = self._reader.get_metrics_data()
        found = [each for part in (data.resource_metrics if data else ()) for each in part.scope_metrics]
        return {metric.name: metric for each in found for metric in each.metrics}

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        """The data points of a metric by the values of their attributes, in the order of the attributes' names."""
        metric = self.metrics().get(name)
        points = metric.data.data_points if metric else ()
        return {tuple(str(value) for _, value in sorted((each.attributes or {}).items())): each for each in points}

    def counts(self, name: str) -> dict[tuple[str, ...], int]:
        """How often a histogram was recorded, or how much a counter counted."""
        return {key: getattr(point, "count", None) or point.value for key, point in self.points(name).items()}


@contextmanager
def measuring(settings: Settings | None = None) -> Iterator[Measured]:
    """Record spans and metrics inside in memory, with providers of their own; settings may name exporters of metrics.

    What `configure` does beyond this is set a global meter provider, which only a process of its own can.
    """
    chosen = settings or Settings.model_construct()
    recorded, reader = Recorded(), InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("telemetry")
    instruments = Instruments(meter, build_redactor(chosen).redact_text)
    requests = RequestFilter(SimpleSpanProcessor(recorded))
    processors = [ScopeAttributesProcessor(), FrameworkRuns(), requests, SpanMetrics(instruments), recorded]
    provider = build_provider(chosen, "test", processors)
    activate(Pipeline(provider), chosen.model_copy(update={"metrics_exporter": ()}), requests)
    pipeline.put(instruments)
    observe(meter)
    try:
        yield Measured(recorded, reader, provider)
    finally:
        deactivate()
        provider.shutdown()
