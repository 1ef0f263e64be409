"""MLflow's autologging, sent over OTLP."""

import os

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{endpoint}/v1/traces"
    os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
    os.environ["MLFLOW_TRACKING_URI"] = endpoint
    import mlflow
    from mlflow.tracing.provider import provider  # pyright: ignore[reportMissingImports] - in an environment of its own

    mlflow.langchain.autolog()  # pyright: ignore[reportAttributeAccessIssue] - in an environment of its own
    # Made with the first span.
    return Tracing(flush=lambda: provider.get().force_flush())
