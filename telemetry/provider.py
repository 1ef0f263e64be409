"""The tracer provider of this process: what it knows of itself, what it keeps, where its spans go."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.instrumentation.propagators import set_global_response_propagator
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from telemetry import instrumentors, langfuse, wire
from telemetry.context import Stamper
from telemetry.delivery.processor import SpoolProcessor
from telemetry.logs import Correlated, correlate
from telemetry.propagator import StartPropagator, TrustedPropagator, trust
from telemetry.quiet import Quiet
from telemetry.sampler import ModelHttpSampler
from telemetry.scores import desk
from telemetry.settings import Settings, load_settings, unusable

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger(__name__)

# OpenInference writes several attributes a message; the SDK's 128 would drop the oldest, the user's id among them.
MAX_ATTRIBUTES = 4096

_lock = threading.Lock()
_pipeline: "Pipeline | None" = None


@dataclass
class Pipeline:
    """What is in force in this process."""

    provider: TracerProvider
    quiet: Quiet
    spooling: SpoolProcessor | None = None
    propagator: TrustedPropagator = field(default_factory=TrustedPropagator)
    logs: Correlated | None = None

    @cached_property
    def tracer(self) -> trace.Tracer:
        """What our own spans are made with: the SDK takes as long to find one as to make a span."""
        return self.provider.get_tracer("telemetry")


def configure(service: str) -> None:
    """Set tracing up for this process, once; a later call changes nothing.

    `service` is the service's name unless `OTEL_SERVICE_NAME` says otherwise. Raises `SettingsError` for settings that
    cannot be served. A tracer provider that somebody else has set stays, and gets our processors.
    """
    with _lock:
        if _pipeline is not None:
            return
        settings = load_settings()
        if not settings.active:
            logger.info("tracing is off: %s", _why_off(settings))
            if settings.langsmith_api_key:
                desk.start(settings)
            return
        last = _last(settings)
        quiet = Quiet(last)
        provider = _adopt_or_build(settings, service, [Stamper(), quiet])
        activate(Pipeline(provider, quiet, last if isinstance(last, SpoolProcessor) else None), settings)


def activate(pipeline: Pipeline, settings: Settings) -> None:
    """Put a pipeline in force: propagators, instrumented libraries, log records, links."""
    global _pipeline
    _pipeline = pipeline
    for host in settings.trusted_hosts:
        trust(host)
    propagate.set_global_textmap(pipeline.propagator)
    set_global_response_propagator(StartPropagator())
    langfuse.learn_links(settings)
    desk.start(settings, _environment(pipeline.provider))
    pipeline.logs = correlate()
    instrumentors.instrument_libraries(pipeline.provider, settings)


def deactivate() -> None:
    """Take the pipeline out of force; its provider is left as it is."""
    global _pipeline
    if _pipeline is not None:
        desk.stop()
        instrumentors.uninstrument_libraries()
        if _pipeline.logs:
            _pipeline.logs.undo()
        _pipeline = None


def instrument_app(
    app: "FastAPI", *, quiet: Iterable[str] = (), honours: Callable[[str | None], bool] | None = None
) -> None:
    """Trace the requests of this app, where tracing is on."""
    if _pipeline is None:
        return
    _pipeline.quiet.hush(quiet)
    if honours:
        _pipeline.propagator.honours = honours
    instrumentors.instrument_app(app, _pipeline.provider)


def shutdown() -> None:
    """Send what is still held and stop tracing; safe to call twice and when tracing is off."""
    if _pipeline is not None:
        _pipeline.provider.shutdown()
    desk.stop()


def pipeline() -> Pipeline | None:
    """Return what is in force, None with tracing off."""
    return _pipeline


def tracer() -> trace.Tracer:
    """Return the tracer that our own spans are made with; one that makes nothing with tracing off."""
    return _pipeline.tracer if _pipeline else trace.NoOpTracer()


def build_provider(settings: Settings, service: str, processors: Sequence[SpanProcessor]) -> TracerProvider:
    """Return a provider with our resource, limits and sampler, and these processors; nothing global changes."""
    provider = TracerProvider(
        resource=_resource(settings, service),
        sampler=_sampler(settings) if settings.model_http else ModelHttpSampler(_sampler(settings)),
        span_limits=_limits(),
    )
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def _adopt_or_build(settings: Settings, service: str, processors: Sequence[SpanProcessor]) -> TracerProvider:
    present = trace.get_tracer_provider()
    if not isinstance(present, TracerProvider):
        provider = build_provider(settings, service, processors)
        trace.set_tracer_provider(provider)
        return provider
    logger.warning("a tracer provider was already set: its resource, limits and sampler stay in force")
    for processor in processors:
        present.add_span_processor(processor)
    return present


def _resource(settings: Settings, service: str) -> Resource:
    ours = {
        "service.name": service,
        "deployment.environment.name": settings.environment,
        "service.version": settings.release,
        "langfuse.release": settings.release,
    }
    known = Resource.create({key: value for key, value in ours.items() if value})
    return known.merge(OTELResourceDetector().detect())


def _environment(provider: TracerProvider) -> str | None:
    """Return what the backend files our traces under: a score belongs there too."""
    known = provider.resource.attributes
    return str(known.get("deployment.environment.name") or known.get("deployment.environment") or "").lower() or None


def _limits() -> SpanLimits:
    named = {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"} & os.environ.keys()
    return SpanLimits() if named else SpanLimits(max_span_attributes=MAX_ATTRIBUTES)


def _sampler(settings: Settings) -> sampling.Sampler:
    rate = settings.sampler_arg if settings.sampler else settings.sampling_rate
    name = settings.sampler or ("parentbased_always_on" if rate is None else "parentbased_traceidratio")
    roots = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(1.0 if rate is None else rate),
    }
    root = roots[name.removeprefix("parentbased_")]
    return sampling.ParentBased(root) if name.startswith("parentbased_") else root


def _last(settings: Settings) -> SpanProcessor:
    """Return the processor that spans leave by."""
    if settings.exporter == "console":
        return _printing(settings)
    prepare = partial(wire.prepare_all, stages=wire.stages(settings))
    spooling = SpoolProcessor(settings, prepare, settings.schedule_delay_ms / 1000)
    spooling.outbox.start()
    return spooling


def _printing(settings: Settings) -> SpanProcessor:
    try:
        return BatchSpanProcessor(ConsoleSpanExporter(), schedule_delay_millis=settings.schedule_delay_ms or 1)
    except ValueError as error:
        raise unusable("OTEL_BSP_*", error, "correct these variables, or remove them") from None


def _why_off(settings: Settings) -> str:
    if not settings.enabled:
        return "switched off by LANGFUSE_TRACING or OTEL_SDK_DISABLED"
    return "no backend is configured; set LANGFUSE_HOST and keys, or OTEL_EXPORTER_OTLP_ENDPOINT"
