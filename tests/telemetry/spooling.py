"""A tracer whose spans go through a spool to a receiver, and deliverers that do not make a test wait."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Tracer

from telemetry.delivery import deliver, outbox, spools
from telemetry.delivery.outbox import Outbox
from telemetry.delivery.processor import SpoolProcessor
from telemetry.receiver import Receiver
from telemetry.settings import Settings


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits fit the length of a test, and give up on nothing; what is decided stays the same."""
    for name, seconds in {"FIRST_WAIT_S": 0.01, "MOST_WAIT_S": 0.05, "SLOW_WAIT_S": 0.05, "TICK_S": 0.05}.items():
        monkeypatch.setattr(deliver, name, seconds)
    for name in ("FAREWELL_S", "VERDICT_S"):
        monkeypatch.setattr(outbox, name, 60)
    monkeypatch.setattr(spools, "ADOPT_EVERY", 1)


def settings(endpoint: str, folder: Path, **more: object) -> Settings:
    return Settings.model_validate({"otlp_endpoint": endpoint, "spool_dir": folder, "timeout": 60, **more})


def encode(spans: Sequence[ReadableSpan]) -> list[bytes]:
    return [encode_spans([span]).SerializeToString() for span in spans]


@contextmanager
def spooling(receiver: Receiver, folder: Path, **more: object) -> Iterator[tuple[Tracer, Outbox]]:
    """A tracer and its outbox, shut down on leaving."""
    last = SpoolProcessor(settings(receiver.endpoint, folder, **more), encode, interval_s=0.01)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(last)
    try:
        yield provider.get_tracer("test"), last.outbox
    finally:
        provider.shutdown()
