"""Serve the metrics to Prometheus, with exemplars.

OpenTelemetry's own exporter for Prometheus leaves out the exemplars, which link a metric to a trace. The names are
those that Prometheus makes of the same metrics when it receives them over OTLP.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.trace import format_span_id, format_trace_id
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from telemetry.metrics.prometheus_names import prometheus_label, prometheus_name


class MetricsPage(Collector):
    """What a reader collects, as Prometheus's metric families."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def collect(self) -> Iterator[Family]:
        """Collect the metrics and yield a family for each."""
        data = self._reader.get_metrics_data()
        for resource_metrics in data.resource_metrics if data else ():
            yield _target(resource_metrics.resource.attributes)
            for scope_metrics in resource_metrics.scope_metrics:
                yield from filter(None, map(_family, scope_metrics.metrics))


def serve(reader: InMemoryMetricReader, host: str, port: int) -> None:
    """Serve the page at `/metrics` from a thread; raise `OSError` if the port is in use."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsPage(reader))
    start_http_server(port, addr=host, registry=registry)


def _target(attributes: Mapping[str, Any]) -> Family:
    labels = _labels(attributes)
    return InfoMetricFamily("target", "The process that the metrics are of.", value=labels)


def _family(metric: Metric) -> Family | None:
    name, text, data = prometheus_name(metric.name, metric.unit or ""), metric.description or "", metric.data
    if isinstance(data, Histogram):
        keys = _keys(data.data_points)
        family = HistogramMetricFamily(name, text, labels=[prometheus_label(key) for key in keys])
        for point in data.data_points:
            family.add_metric(_values(point.attributes, keys), _buckets(point), point.sum)
        return family
    if isinstance(data, (Sum, Gauge)):
        keys = _keys(data.data_points)
        is_counter = isinstance(data, Sum) and data.is_monotonic
        family = (CounterMetricFamily if is_counter else GaugeMetricFamily)(
            name, text, labels=[*map(prometheus_label, keys)]
        )
        for point in data.data_points:
            family.add_metric(_values(point.attributes, keys), point.value)
        return family
    return None


def _keys(points: Iterable[HistogramDataPoint | NumberDataPoint]) -> list[str]:
    return sorted({key for point in points for key in point.attributes or ()})


def _values(attributes: Mapping[str, Any] | None, keys: Iterable[str]) -> list[str]:
    known = attributes or {}
    return [str(known.get(key, "")) for key in keys]


def _buckets(point: HistogramDataPoint) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    bounds = [*map(float, point.explicit_bounds), float("inf")]
    exemplars: dict[float, Exemplar] = {}
    for found in point.exemplars:
        if found.trace_id and found.span_id:
            ids = {"trace_id": format_trace_id(found.trace_id), "span_id": format_span_id(found.span_id)}
            bound = next(bound for bound in bounds if found.value <= bound)
            exemplars[bound] = Exemplar(ids, found.value, found.time_unix_nano / 1e9)
    counts = zip(bounds, accumulate(point.bucket_counts), strict=True)
    return [
        (floatToGoString(bound), count, exemplars[bound]) if bound in exemplars else (floatToGoString(bound), count)
        for bound, count in counts
    ]


def _labels(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {prometheus_label(key): str(value) for key, value in attributes.items()}
