"""Set up tracing for this process, and end it."""

import logging
import threading
from functools import partial

from opentelemetry import propagate
from opentelemetry.instrumentation.propagators import set_global_response_propagator
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from telemetry import log_export, pipeline, prompts
from telemetry.backends import langfuse
from telemetry.backends.langfuse_sdk import send_sdk_spans_once
from telemetry.delivery.writer import SHUTDOWN_TIMEOUT_S, SpoolProcessor
from telemetry.export.stages import build_stages, prepare_all
from telemetry.genai_events import GenaiEvents
from telemetry.instrumentation import libraries, uvicorn_server
from telemetry.logs import Correlated, correlate
from telemetry.metrics import process as metrics
from telemetry.metrics.instruments import Instruments
from telemetry.otel.framework_runs import FrameworkRuns
from telemetry.otel.idle_hooks import is_idle_hook
from telemetry.otel.propagator import StartPropagator, TrustedPropagator, trust
from telemetry.otel.request_filter import RequestFilter
from telemetry.otel.scope_attributes import ScopeAttributesProcessor
from telemetry.pipeline import Pipeline
from telemetry.provider import adopt_or_build, environment_of
from telemetry.scores import queue
from telemetry.settings import Settings, load_settings, unusable

logger = logging.getLogger(__name__)

# When a server or one of several apps ends: how long to wait for each answer of the backend.
FLUSH_TIMEOUT_S = 2.0

_lock = threading.Lock()


def configure(service: str) -> None:
    """Set up tracing for this process, once; a later call changes nothing.

    Args:
        service: the service's name, unless `OTEL_SERVICE_NAME` is set.

    Raises `SettingsError` for invalid settings. If a global tracer provider exists already, it is kept and gets our
    processors.

    Example:
        >>> import telemetry
        >>> telemetry.configure("my-service")
        >>> telemetry.shutdown()
    """
    with _lock:
        if pipeline.active():
            return
        settings = load_settings()
        if not settings.active:
            logger.info("tracing is off: %s", _why_off(settings))
            if settings.langsmith_api_key:
                queue.start(settings)
            return
        for sentence in settings.without_effect:
            logger.warning(sentence)
        last = _last_processor(settings)
        requests = RequestFilter(last)
        provider = adopt_or_build(settings, service, [ScopeAttributesProcessor(), FrameworkRuns(), requests])
        send_sdk_spans_once(provider, settings, requests)
        activate(Pipeline(provider), settings, requests, last)


def activate(
    active: Pipeline, settings: Settings, requests: RequestFilter, last_processor: SpanProcessor | None = None
) -> None:
    """Activate a pipeline: propagators, instrumented libraries, log records, links, scores.

    `requests` filters the spans that reach `last_processor`, which sends them.
    """
    pipeline.put(active)
    pipeline.put(requests)
    if not settings.middleware_hooks:
        requests.leave_out(is_idle_hook)
    if last_processor:
        pipeline.put(last_processor)
    for host in settings.trusted_hosts:
        trust(host)
    propagate.set_global_textmap(pipeline.put(TrustedPropagator()))
    set_global_response_propagator(StartPropagator())
    langfuse.learn_links(settings)
    queue.start(settings, environment_of(active.provider))
    prompts.start(settings)
    if settings.metrics_exporters:
        # Imported here, so that a process without metrics does not import their SDK.
        from telemetry.metrics.provider import start

        start(settings, active.provider)
    pipeline.put(correlate())
    if settings.sends_logs:
        pipeline.put(log_export.start(settings, active.provider))
    libraries.instrument(active.provider, settings)
    uvicorn_server.instrument(partial(flush, FLUSH_TIMEOUT_S))


def deactivate() -> None:
    """Deactivate the pipeline; its provider is left as it is."""
    if pipeline.remove(Pipeline) is None:
        return
    queue.stop()
    libraries.uninstrument()
    uvicorn_server.uninstrument()
    if logs := pipeline.remove(Correlated):
        logs.undo()
    if records := pipeline.remove(log_export.LogExport):
        records.undo()
    for part in (
        RequestFilter,
        SpoolProcessor,
        TrustedPropagator,
        prompts.Prompts,
        metrics.Metrics,
        Instruments,
        GenaiEvents,
    ):
        pipeline.remove(part)


def flush(seconds: float = 30.0) -> bool:
    """Send the spans that have ended so far, and return whether the backend has accepted all of them.

    Metrics and log records, if they are on, are sent as well.

    Args:
        seconds: how long to wait for each answer of the backend; it does not wait for a backend that is down.

    Returns True with tracing off: there is nothing to send. Spans that were not sent stay in the spool and are sent
    later.

    Example:
        >>> import telemetry
        >>> telemetry.flush(seconds=5)
        True
    """
    active = pipeline.active()
    accepted = active is None or active.provider.force_flush(round(seconds * 1000))
    metrics.flush(seconds)
    log_export.flush(seconds)
    return accepted


def shutdown() -> None:
    """Send the remaining spans and stop tracing; safe to call twice and with tracing off.

    Spans that the backend does not accept in time stay in the spool, for the next process to send.

    Example:
        >>> import telemetry
        >>> telemetry.shutdown()
    """
    if active := pipeline.active():
        active.provider.shutdown()
    log_export.flush(SHUTDOWN_TIMEOUT_S)
    queue.stop()


def resume() -> None:
    """Start again after `shutdown`, for an app that is started again in the same process."""
    active, processor = pipeline.active(), pipeline.get(SpoolProcessor)
    if active and processor and processor.reopen():
        queue.start(processor.writer.settings, environment_of(active.provider))


def _last_processor(settings: Settings) -> SpanProcessor:
    """Return the processor that sends spans."""
    if settings.exporter == "console":
        return _console(settings)
    prepare = partial(prepare_all, stages=build_stages(settings))
    spool = SpoolProcessor(settings, prepare, settings.schedule_delay_ms / 1000)
    spool.writer.start()
    return spool


def _console(settings: Settings) -> SpanProcessor:
    try:
        return BatchSpanProcessor(ConsoleSpanExporter(), schedule_delay_millis=settings.schedule_delay_ms or 1)
    except ValueError as error:
        raise unusable("OTEL_BSP_*", error, "correct these variables, or remove them") from None


def _why_off(settings: Settings) -> str:
    if not settings.enabled:
        return "switched off by LANGFUSE_TRACING or OTEL_SDK_DISABLED"
    return "no backend is configured; set LANGFUSE_HOST and keys, or OTEL_EXPORTER_OTLP_ENDPOINT"
