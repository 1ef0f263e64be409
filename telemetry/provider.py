"""The tracer provider: its resource, its sampler, and the limits of its spans."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider, sampling

from telemetry.export.redact import Redactor
from telemetry.otel.sampler import HttpCallSampler
from telemetry.settings import Settings

logger = logging.getLogger(__name__)

# OpenInference writes several attributes a message; the SDK's 128 would drop the oldest, the user's id among them.
MAX_ATTRIBUTES = 4096


def build_provider(settings: Settings, service: str, processors: Sequence[SpanProcessor]) -> TracerProvider:
    """Return a provider with our resource, limits and sampler, and these processors; nothing global changes."""
    provider = TracerProvider(
        resource=_resource(settings, service),
        sampler=HttpCallSampler(
            _sampler(settings),
            backends=_backends(settings),
            model_http=settings.model_http,
            records_all=bool(settings.metrics_exporters),
        ),
        span_limits=_limits(),
    )
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def adopt_or_build(settings: Settings, service: str, processors: Sequence[SpanProcessor]) -> TracerProvider:
    """Return the global provider, with these processors added; create it if there is none.

    A provider that takes no processors is left as it is: the one returned stands beside it.
    """
    present = trace.get_tracer_provider()
    if isinstance(present, trace.ProxyTracerProvider):
        provider = build_provider(settings, service, processors)
        trace.set_tracer_provider(provider)
        return provider
    if not hasattr(present, "add_span_processor"):
        logger.warning(
            "the tracer provider that was already set (%s) accepts no span processors: its spans are not sent, and "
            "ours are not below them",
            type(present).__module__,
        )
        return build_provider(settings, service, processors)
    # Not always a class of the SDK's: Logfire's is a proxy.
    adopted = cast(TracerProvider, present)
    logger.warning(
        "a tracer provider was already set: its resource, limits and sampler are kept%s",
        _what_it_lacks(adopted, _resource(settings, service)),
    )
    for processor in processors:
        adopted.add_span_processor(processor)
    return adopted


def _what_it_lacks(provider: TracerProvider, wanted: Resource) -> str:
    present = attributes_of(provider)
    ours = {key: value for key, value in wanted.attributes.items() if not key.startswith("telemetry.sdk.")}
    lacking = [f"{key}={value}" for key, value in ours.items() if present.get(key) != value]
    return f", and its spans are not marked as {', '.join(lacking)}" if lacking else ""


def _resource(settings: Settings, service: str) -> Resource:
    attributes = {
        "service.name": service,
        "deployment.environment.name": settings.environment,
        "service.version": settings.release,
        "langfuse.release": settings.release,
    }
    resource = Resource.create({key: value for key, value in attributes.items() if value})
    return resource.merge(OTELResourceDetector().detect())


def attributes_of(provider: TracerProvider) -> Mapping[str, Any]:
    """Return the attributes of a provider's resource; none of one that does not tell."""
    resource = getattr(provider, "resource", None)
    return resource.attributes if isinstance(resource, Resource) else {}


def redacted_resource(provider: TracerProvider, redactor: Redactor) -> Resource:
    """Return the resource of a provider's spans for other signals, redacted as it is in spans."""
    return Resource(
        {redactor.redact_text(key): redactor.redact_field(key, value) for key, value in attributes_of(provider).items()}
    )


def environment_of(provider: TracerProvider) -> str | None:
    """Return the environment of the provider's spans, which scores must have too."""
    attributes = attributes_of(provider)
    name = attributes.get("deployment.environment.name") or attributes.get("deployment.environment")
    return str(name).lower() if name else None


def _limits() -> SpanLimits:
    named = {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"} & os.environ.keys()
    return SpanLimits() if named else SpanLimits(max_span_attributes=MAX_ATTRIBUTES)


def _backends(settings: Settings) -> list[str]:
    langfuse = f"{settings.langfuse_url}/api/" if settings.langfuse_url else None
    return [address for address in (settings.endpoint, langfuse) if address]


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
