"""Trace the libraries that are installed in this process."""

import os
from importlib.util import find_spec

from opentelemetry.trace import TracerProvider

from telemetry.instrumentation import http
from telemetry.settings import Settings


def instrument(provider: TracerProvider, settings: Settings) -> None:
    """Trace httpx, httpx2 and LangChain, if they are installed."""
    # Read once, at the first instrumentation: the stable HTTP names.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    http.instrument(provider)
    if find_spec("langchain_core"):
        from telemetry.instrumentation.langchain import instrumentor

        instrumentor.instrument(provider, settings)


def uninstrument() -> None:
    """Undo `instrument`."""
    http.uninstrument()
    if find_spec("langchain_core"):
        from telemetry.instrumentation.langchain import instrumentor

        instrumentor.uninstrument()
