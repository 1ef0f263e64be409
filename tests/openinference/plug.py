"""A pytest plugin: `LangChainInstrumentor().instrument()` becomes this pipeline; exporters see spans as sent."""

import os
from collections.abc import Sequence
from typing import Any

from openinference.instrumentation import TraceConfig
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry import trace
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

from telemetry import pipeline, provider
from telemetry.configure import activate, deactivate
from telemetry.export import otlp
from telemetry.export.stages import Stage, build_stages, prepare
from telemetry.otel.framework_runs import FrameworkRuns
from telemetry.otel.request_filter import RequestFilter
from telemetry.otel.sampler import HttpCallSampler
from telemetry.otel.scope_attributes import ScopeAttributesProcessor
from telemetry.pipeline import Pipeline
from telemetry.settings import Settings

_stock = LangChainInstrumentor.instrument, LangChainInstrumentor.uninstrument


class Leaving(SpanExporter):
    """Passes on each span as a backend would get it."""

    def __init__(self, exporter: SpanExporter, stages: Sequence[Stage]) -> None:
        self._exporter = exporter
        self._stages = stages

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_as_sent(span, self._stages) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _as_sent(span: ReadableSpan, stages: Sequence[Stage]) -> ReadableSpan:
    (sent,) = otlp.decode(prepare(span, stages), "application/x-protobuf")
    return ReadableSpan(
        name=sent.name,
        context=span.context,
        parent=span.parent,
        kind=span.kind,
        resource=span.resource,
        attributes=_tuples(sent.attributes),
        events=[Event(event.name, _tuples(event.attributes), event.time) for event in sent.events],
        links=span.links,
        status=Status(StatusCode[sent.status], sent.message or None),
        start_time=sent.start,
        end_time=sent.end,
        instrumentation_scope=span.instrumentation_scope,
    )


def _tuples(attributes: Any) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}


def _instrument(self: LangChainInstrumentor, **kwargs: Any) -> None:
    # The pipeline's own call of it.
    if pipeline.active():
        _stock[0](self, **kwargs)
        return
    given = kwargs.get("tracer_provider") or trace.get_tracer_provider()
    assert isinstance(given, TracerProvider)
    _hide(kwargs.get("config"))
    settings = Settings()
    stages = build_stages(settings)
    for processor in given._active_span_processor._span_processors:
        if isinstance(processor, SimpleSpanProcessor) and not isinstance(processor.span_exporter, Leaving):
            processor.span_exporter = Leaving(processor.span_exporter, stages)
    if not isinstance(given.sampler, HttpCallSampler):
        given.sampler = HttpCallSampler(given.sampler)
        given._span_limits = provider._limits()
    given.add_span_processor(ScopeAttributesProcessor())
    given.add_span_processor(FrameworkRuns())
    nowhere = SimpleSpanProcessor(InMemorySpanExporter())
    activate(Pipeline(given), settings, RequestFilter(nowhere))


def _uninstrument(self: LangChainInstrumentor, **kwargs: Any) -> None:
    if pipeline.active():
        deactivate()
    else:
        _stock[1](self, **kwargs)
    for name in [name for name in os.environ if name.startswith("OPENINFERENCE_HIDE_")]:
        del os.environ[name]


def _hide(config: TraceConfig | None) -> None:
    """Set the variables that say the same as a config in code."""
    for name, value in vars(config).items() if config else ():
        if name.startswith("hide") and value:
            os.environ["OPENINFERENCE_" + name.upper()] = "true"


LangChainInstrumentor.instrument, LangChainInstrumentor.uninstrument = _instrument, _uninstrument
