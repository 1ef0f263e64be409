"""Traceloop's SDK (OpenLLMetry)."""

import os

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    os.environ["TRACELOOP_TELEMETRY"] = "false"
    from opentelemetry import trace
    from traceloop.sdk import Traceloop  # pyright: ignore[reportMissingImports] - in an environment of its own

    Traceloop.init(app_name="bench", api_endpoint=endpoint, api_key="bench")
    return Tracing(flush=trace.get_tracer_provider().force_flush)  # pyright: ignore[reportAttributeAccessIssue] - the SDK's
