"""Opik's tracer."""

import os

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    os.environ |= {"OPIK_URL_OVERRIDE": f"{endpoint}/api", "OPIK_SENTRY_ENABLE": "false", "OPIK_API_KEY": "bench"}
    os.environ["OPIK_WORKSPACE"] = "bench"
    from opik.integrations.langchain import OpikTracer  # pyright: ignore[reportMissingImports] - in an environment of its own

    tracer = OpikTracer()
    return Tracing(flush=tracer.flush, callbacks=[tracer])
