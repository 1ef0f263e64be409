"""Trace calls of httpx and httpx2: one CLIENT span for each."""

from importlib.util import find_spec
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.trace import Span, TracerProvider

from telemetry.otel.propagator import note_call

_INSTRUMENTORS = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}
# An httpx client may say in a request's extensions what its span should say of it.
EXTENSIONS = ("service.peer.name", "url.template")


def instrument(provider: TracerProvider) -> None:
    """Trace the calls of httpx and httpx2, if they are installed."""
    for instrumentor in _instrumentors():
        instrumentor.instrument(tracer_provider=provider, request_hook=_on_request, async_request_hook=_on_async)


def uninstrument() -> None:
    """Undo `instrument`."""
    for instrumentor in _instrumentors():
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


def _instrumentors() -> list[BaseInstrumentor]:
    # An instrumentor whose library is missing logs an error, and early releases of it import httpx themselves.
    if not any(map(find_spec, _INSTRUMENTORS)):
        return []
    from opentelemetry.instrumentation import httpx

    # Early releases have no instrumentor of httpx2.
    kinds = (getattr(httpx, kind, None) for library, kind in _INSTRUMENTORS.items() if find_spec(library))
    return [kind() for kind in kinds if kind]


def _on_request(span: Span, request: Any) -> None:
    note_call(span, _url(request.url))
    extensions = request.extensions or {}
    span.set_attributes({key: extensions[key] for key in EXTENSIONS if key in extensions})


async def _on_async(span: Span, request: Any) -> None:
    _on_request(span, request)


def _url(url: Any) -> str:
    if isinstance(url, tuple):
        scheme, host, port, _ = url
        return f"{scheme.decode()}://{host.decode()}" + (f":{port}" if port else "")
    return str(url)
