"""OpenLIT."""

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    import openlit
    from opentelemetry import trace

    openlit.init(otlp_endpoint=endpoint)  # pyright: ignore[reportAttributeAccessIssue] - in an environment of its own
    return Tracing(flush=trace.get_tracer_provider().force_flush)  # pyright: ignore[reportAttributeAccessIssue] - the SDK's
