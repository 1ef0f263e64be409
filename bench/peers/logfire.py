"""Logfire by default: LangChain's runs come by way of LangSmith's OpenTelemetry mode."""

import os

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    os.environ |= {"LANGSMITH_OTEL_ENABLED": "true", "LANGSMITH_OTEL_ONLY": "true", "LANGSMITH_TRACING": "true"}
    os.environ |= {"LOGFIRE_BASE_URL": endpoint, "LOGFIRE_TOKEN": "bench"}
    import logfire
    from langsmith.run_trees import get_cached_client

    configured = logfire.configure(console=False)  # pyright: ignore[reportAttributeAccessIssue] - in an environment of its own

    def flush() -> None:
        get_cached_client().flush()
        configured.force_flush()

    return Tracing(flush=flush)
