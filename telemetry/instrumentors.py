"""The only place that switches instrumentors on and off."""

import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.trace import Span, TracerProvider

from telemetry.propagator import note_call
from telemetry.request_context import serve_apart
from telemetry.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

# An httpx client may say in a request's extensions what its span should say of it.
CALLED = ("service.peer.name", "url.template")


def instrument_app(app: "FastAPI", provider: TracerProvider) -> None:
    """Make one SERVER span for each request of the app.

    A stream of two hundred events would make two hundred spans of ASGI messages: they are left out.
    """
    # Here, because importing it needs FastAPI: a page or a worker that is traced has none.
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, exclude_spans=["send", "receive"])
    serve_apart(app)


def instrument_libraries(provider: TracerProvider, settings: Settings) -> None:
    """Trace what is installed of httpx, httpx2 and LangChain."""
    # Read once, at the first instrumentation: the stable HTTP names.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    for instrumentor in _http_clients():
        instrumentor.instrument(tracer_provider=provider, request_hook=_note, async_request_hook=_note_async)
    if find_spec("langchain_core"):
        from telemetry.langchain import langgraph

        langgraph.instrument(provider, settings)


def uninstrument_libraries() -> None:
    """Undo `instrument_libraries`."""
    for instrumentor in _http_clients():
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
    if find_spec("langchain_core"):
        from telemetry.langchain import langgraph

        langgraph.uninstrument()


def end_runs(run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
    """End the spans of these LangChain runs, of those that are still open."""
    if langgraph := sys.modules.get("telemetry.langchain.langgraph"):
        langgraph.end_runs(run_ids, cancelled=cancelled, abandoned=abandoned)


def _http_clients() -> list[BaseInstrumentor]:
    # An instrumentor whose library is missing logs an error.
    kinds: dict[str, type[BaseInstrumentor]] = {
        "httpx": HTTPXClientInstrumentor,
        "httpx2": HTTPX2ClientInstrumentor,
    }
    return [kind() for name, kind in kinds.items() if find_spec(name)]


def _note(span: Span, request: Any) -> None:
    note_call(span, _url(request.url))
    named = {key: request.extensions[key] for key in CALLED if key in (request.extensions or {})}
    span.set_attributes(named)


async def _note_async(span: Span, request: Any) -> None:
    _note(span, request)


def _url(url: Any) -> str:
    if isinstance(url, tuple):
        scheme, host, port, _ = url
        return f"{scheme.decode()}://{host.decode()}" + (f":{port}" if port else "")
    return str(url)
