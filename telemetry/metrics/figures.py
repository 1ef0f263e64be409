"""The pipeline's own figures as metrics: what `/health/telemetry` shows, read when metrics are collected."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from telemetry.internal_errors import handle_internal_errors
from telemetry.metrics.instruments import Instrument
from telemetry.stats import stats

Values = Iterable[tuple[float, Mapping[str, str]]]


def observe(meter: Meter) -> None:
    """Create an observable instrument for each of the figures."""
    for instrument, read in FIGURES:
        create = (
            meter.create_observable_counter
            if instrument.kind == "observable counter"
            else meter.create_observable_gauge
        )
        create(instrument.name, [_callback(read)], instrument.unit, instrument.description)


def _callback(read: Callable[[Mapping[str, Any]], Values]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observations(_: CallbackOptions) -> Iterable[Observation]:
        with handle_internal_errors("read a figure for metrics"):
            return [Observation(value, dict(attributes)) for value, attributes in read(stats())]
        return ()

    return observations


def _process(name: str) -> Callable[[Mapping[str, Any]], Values]:
    def read(figures: Mapping[str, Any]) -> Values:
        found = figures["process"].get(name)
        return () if found is None else [(found, {})]

    return read


def _each(name: str, attribute: str) -> Callable[[Mapping[str, Any]], Values]:
    return lambda figures: [(value, {attribute: key}) for key, value in figures["process"].get(name, {}).items()]


def _lag(figures: Mapping[str, Any]) -> Values:
    lags = figures["process"].get("lag_ms") or {}
    return [(milliseconds / 1000, {"quantile": name}) for name, milliseconds in lags.items()]


def _scores(name: str) -> Callable[[Mapping[str, Any]], Values]:
    return lambda figures: [
        (backend[name], {"backend": backend_name}) for backend_name, backend in figures.get("scores", {}).items()
    ]


def _oldest(figures: Mapping[str, Any]) -> Iterator[tuple[float, Mapping[str, str]]]:
    if "spool" in figures:
        yield figures["spool"]["oldest_s"], {}


def _gauge(name: str, unit: str, description: str, *attributes: str) -> Instrument:
    return Instrument(name, "observable gauge", unit, description, attributes)


def _counter(name: str, unit: str, description: str, *attributes: str) -> Instrument:
    return Instrument(name, "observable counter", unit, description, attributes)


FIGURES: tuple[tuple[Instrument, Callable[[Mapping[str, Any]], Values]], ...] = (
    (_gauge("telemetry.queue.spans", "{span}", "Ended spans that are not on disk yet."), _process("pending")),
    (_gauge("telemetry.spool.spans", "{span}", "Spans that the backend has not accepted yet."), _process("waiting")),
    (_gauge("telemetry.spool.size", "By", "Their size."), _process("waiting_bytes")),
    (_gauge("telemetry.spool.age", "s", "Age of the oldest of them, of all processes that share the folder."), _oldest),
    (_gauge("telemetry.lag", "s", "Time from the end of a span until it is on disk.", "quantile"), _lag),
    (_counter("telemetry.spans.sent", "{span}", "Spans that the backend has accepted."), _process("delivered")),
    (_counter("telemetry.spans.refused", "{span}", "Spans refused within accepted requests."), _process("rejected")),
    (_counter("telemetry.spans.dead", "{span}", "Spans that were given up: dead letters."), _process("dead_letters")),
    (_counter("telemetry.spans.dropped", "{span}", "Spans that were dropped.", "reason"), _each("dropped", "reason")),
    (_counter("telemetry.failures", "{failure}", "Failures of tracing itself.", "action"), _each("failures", "action")),
    (_gauge("telemetry.scores.waiting", "{score}", "Scores not accepted yet.", "backend"), _scores("waiting")),
    (_counter("telemetry.scores.sent", "{score}", "Scores that were accepted.", "backend"), _scores("delivered")),
    (_counter("telemetry.scores.refused", "{score}", "Scores that were refused.", "backend"), _scores("refused")),
)
"""Each figure with the function that reads it from `telemetry.stats`."""
