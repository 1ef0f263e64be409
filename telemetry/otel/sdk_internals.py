"""The private names of the OpenTelemetry SDK that are used, and what is lost without them."""

from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider


def end_span(provider: TracerProvider, span: ReadableSpan) -> None:
    """Pass a finished span to the provider's processors: the SDK itself cannot create one with a given id.

    Without `TracerProvider._active_span_processor` the turn of a process that died never ends in its trace.
    """
    sdk_provider(provider)._active_span_processor.on_end(span)  # noqa: SLF001 - see above


def sdk_provider(provider: TracerProvider) -> TracerProvider:
    """Return the SDK's own provider, for which Logfire has a proxy."""
    return getattr(provider, "provider", provider)


def has_meter_provider() -> bool:
    """Return whether a meter provider is set; the placeholder of the API, `_ProxyMeterProvider`, has no public name.

    If it is renamed, one that we set counts as the program's, and metrics are not sent.
    """
    return type(get_meter_provider()).__name__ != "_ProxyMeterProvider"
