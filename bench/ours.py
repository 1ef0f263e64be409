"""Our tracing, set up as a service does it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import telemetry
from bench.tracing import Tracing
from telemetry import provider


def start(endpoint: str) -> Tracing:
    """Return it; which variant is in the environment."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    telemetry.configure("bench")
    return Tracing(flush=_flush, around=_turn, serve=telemetry.instrument, figures=_figures)


@contextmanager
def _turn(thread: str) -> Iterator[None]:
    with telemetry.scope(session_id=thread, user_id="ada", agent="chatbot"), telemetry.span("turn", kind="AGENT"):
        yield


def _flush() -> None:
    if pipeline := provider.pipeline():
        pipeline.provider.force_flush()


def _figures() -> dict[str, Any]:
    process = telemetry.stats()["process"]
    return {"dropped": sum(process.get("dropped", {}).values()), "dead_letters": process.get("dead_letters", 0)}
