"""Phoenix, by its `register`."""

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    from phoenix.otel import register  # pyright: ignore[reportMissingImports] - in an environment of its own

    provider = register(endpoint=f"{endpoint}/v1/traces", batch=True, auto_instrument=True, verbose=False)
    return Tracing(flush=provider.force_flush)
