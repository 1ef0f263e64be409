"""The variants of the benchmark: our tracing in several settings, and the other tracers in `bench/peers`."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

OURS: Mapping[str, Mapping[str, str]] = {
    "off": {"LANGFUSE_TRACING": "false"},
    "sampled_out": {"OTEL_TRACES_SAMPLER": "always_off"},
    "default": {},
    "recorder": {"TELEMETRY_LANGCHAIN": "recorder"},
}
"""Our variants, each with its environment variables."""
WHOLE = "recorder_whole"
SETTINGS = {
    **OURS,
    WHOLE: {**OURS["recorder"], "TELEMETRY_MAX_VALUE_BYTES": "0", "TELEMETRY_MAX_SPAN_BYTES": "0"},
}
"""Our variants, and the recorder without limits on size, which matter in long conversations."""

NAMES = {
    "off": "ours, `off`",
    "sampled_out": "ours, `sampled_out`",
    "default": "ours, `default`",
    "recorder": "ours, `recorder`",
    WHOLE: "ours, `recorder`, no budgets",
    "openinference": "OpenInference, stock",
    "langfuse": "Langfuse's handler",
    "langsmith": "LangSmith",
    "logfire": "Logfire",
    "traceloop": "Traceloop",
    "openlit": "OpenLIT",
    "phoenix": "Phoenix",
    "mlflow": "MLflow",
    "opik": "Opik",
}
"""The name of each in tables and pictures."""


@dataclass(frozen=True)
class Tracing:
    """How a variant traces the workload: a context manager around a turn, a function that sends spans, and more."""

    flush: Callable[[], object] = lambda: None
    callbacks: list[Any] = field(default_factory=list)
    around: Callable[[str], AbstractContextManager[Any]] = lambda _: nullcontext()
    serve: Callable[[Any], object] = lambda _: None
    figures: Callable[[], dict[str, Any]] = dict


def start(variant: str, endpoint: str) -> Tracing:
    """Start the tracing of this variant in this process, and return it; it sends to the endpoint."""
    if variant == "untraced":
        return Tracing()
    if variant in SETTINGS:
        return _start_ours(endpoint)
    return import_module(f"bench.peers.{variant}").start(endpoint)


def _start_ours(endpoint: str) -> Tracing:
    # Imported here, since it is not installed in the environments of the other tracers.
    import telemetry

    @contextmanager
    def surround(thread: str) -> Iterator[None]:
        with telemetry.scope(session_id=thread, user_id="ada", agent="chatbot"), telemetry.span("turn", kind="AGENT"):
            yield

    def flush() -> None:
        telemetry.flush()

    def figures() -> dict[str, Any]:
        process = telemetry.stats()["process"]
        return {"dropped": sum(process.get("dropped", {}).values()), "dead_letters": process.get("dead_letters", 0)}

    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    telemetry.configure("bench")
    return Tracing(flush=flush, around=surround, serve=telemetry.instrument, figures=figures)
