"""Set up the metrics of this process: its meter provider, and where it sends to."""

import logging
import os
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from telemetry import pipeline
from telemetry.delivery.writer import SHUTDOWN_TIMEOUT_S
from telemetry.export.redact import Redactor
from telemetry.export.stages import build_redactor
from telemetry.metrics.figures import observe
from telemetry.metrics.instruments import Instruments
from telemetry.metrics.process import Metrics
from telemetry.metrics.spans import SpanMetrics
from telemetry.otel.sdk_internals import has_meter_provider
from telemetry.provider import attributes_of, redacted_resource
from telemetry.settings import Settings, SettingsError, unusable

logger = logging.getLogger(__name__)

_INSTANCE = "service.instance.id"
# The hosts that a program calls have no bound: its other attributes have.
_BOUNDED_CLIENT = View(
    instrument_name="http.client.request.duration",
    attribute_keys={"http.request.method", "http.response.status_code", "error.type"},
)


def start(settings: Settings, tracer_provider: TracerProvider) -> None:
    """Record metrics of this provider's spans, and send them where the settings say.

    A meter provider of the program is used as it is, with its readers and views; otherwise one is created. Raises
    `SettingsError` for settings that cannot be used.
    """
    part, redactor = Metrics(metrics.NoOpMeterProvider()), build_redactor(settings)
    if has_meter_provider():
        part.provider = metrics.get_meter_provider()
        logger.warning("a meter provider was already set: metrics are recorded with it and sent by its own readers")
    else:
        part.provider = _build(settings, _resource(tracer_provider, redactor), part.exports)
        metrics.set_meter_provider(part.provider)
    pipeline.put(part)
    meter = part.provider.get_meter("telemetry")
    instruments = pipeline.put(Instruments(meter, redactor.redact_text))
    observe(meter)
    # The last of its processors: when it is shut down, the spans have been sent and are counted.
    tracer_provider.add_span_processor(SpanMetrics(instruments, partial(part.flush, SHUTDOWN_TIMEOUT_S)))


def _build(settings: Settings, resource: Resource, exports: Counter[str]) -> MeterProvider:
    return MeterProvider(
        [reader for kind in settings.metrics_exporters for reader in _readers(kind, settings, exports)],
        resource=resource,
        # It would wait for a backend that is down.
        shutdown_on_exit=False,
        views=[_BOUNDED_CLIENT],
    )


def _resource(tracer_provider: TracerProvider, redactor: Redactor) -> Resource:
    """Return the resource of the spans, with a name of this process: without one, several would be mixed up."""
    name = attributes_of(tracer_provider).get(_INSTANCE) or uuid4()
    return redacted_resource(tracer_provider, redactor).merge(Resource({_INSTANCE: str(name)}))


def _readers(kind: str, settings: Settings, exports: Counter[str]) -> list[MetricReader]:
    if kind == "prometheus":
        return _serve(settings)
    exporter = ConsoleMetricExporter() if kind == "console" else _exporter(settings, exports)
    return [PeriodicExportingMetricReader(exporter, export_interval_millis=settings.metrics_interval_ms)]


def _exporter(settings: Settings, exports: Counter[str]) -> MetricExporter:
    try:
        return CountingExporter(exports, settings.metrics_endpoint)
    except (OSError, ValueError) as error:
        raise unusable("OTEL_EXPORTER_OTLP_METRICS_*", error, "correct these variables, or remove them") from None


class CountingExporter(OTLPMetricExporter):
    """The SDK's exporter, which counts its requests for health checks, and gives a forked process its own name."""

    def __init__(self, exports: Counter[str], endpoint: str | None) -> None:
        super().__init__(endpoint)
        self._exports = exports
        self._pid = os.getpid()
        self._forked: Resource | None = None

    def export(self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any) -> Any:
        """Send the metrics, and count the outcome."""
        result = super().export(self._named(metrics_data), timeout_millis, **kwargs)
        self._exports["sent" if result is MetricExportResult.SUCCESS else "failed"] += 1
        return result

    def _named(self, data: MetricsData) -> MetricsData:
        if (pid := os.getpid()) != self._pid:
            self._pid, self._forked = pid, Resource({_INSTANCE: str(uuid4())})
        if self._forked is None:
            return data
        own = self._forked
        return MetricsData([replace(each, resource=each.resource.merge(own)) for each in data.resource_metrics])


def _serve(settings: Settings) -> list[MetricReader]:
    if not find_spec("prometheus_client"):
        raise SettingsError(
            "OTEL_METRICS_EXPORTER names prometheus, whose package is missing: install agent-telemetry[prometheus]."
        )
    from telemetry.metrics import prometheus

    reader = InMemoryMetricReader()
    try:
        prometheus.serve(reader, settings.metrics_page_host, settings.metrics_page_port)
    except OSError as error:
        # Another process of the same service has it: the program runs on without a page of its own.
        logger.warning(
            "the metrics of process %d are not served: port %d cannot be used (%s)",
            os.getpid(),
            settings.metrics_page_port,
            error.strerror,
        )
        return []
    return [reader]
