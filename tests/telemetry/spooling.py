"""A tracer whose spans go through a spool to a receiver, and senders that do not make a test wait."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Tracer

from telemetry.delivery import backoff, sender, spool, writer
from telemetry.delivery.writer import SpanWriter, SpoolProcessor
from telemetry.settings import Settings
from telemetry.testing.receiver import Receiver


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits fit the length of a test, and give up on nothing; what is decided stays the same."""
    for name, seconds in {"FIRST_DELAY_S": 0.01, "MAX_DELAY_S": 0.05, "CONFIG_ERROR_DELAY_S": 0.05}.items():
        monkeypatch.setattr(backoff, name, seconds)
    monkeypatch.setattr(sender, "IDLE_S", 0.05)
    for name in ("SHUTDOWN_TIMEOUT_S", "DECISION_TIMEOUT_S"):
        monkeypatch.setattr(writer, name, 60)
    monkeypatch.setattr(spool, "ADOPT_EVERY", 1)


def settings(endpoint: str, folder: Path, **more: object) -> Settings:
    return Settings.model_validate({"otlp_endpoint": endpoint, "spool_dir": folder, "timeout": 60, **more})


def encode(spans: Sequence[ReadableSpan]) -> list[bytes]:
    return [encode_spans([span]).SerializeToString() for span in spans]


@contextmanager
def spooling(receiver: Receiver, folder: Path, **more: object) -> Iterator[tuple[Tracer, SpanWriter]]:
    """A tracer and its writer, shut down on leaving."""
    last = SpoolProcessor(settings(receiver.endpoint, folder, **more), encode, interval_s=0.01)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(last)
    try:
        yield provider.get_tracer("test"), last.writer
    finally:
        provider.shutdown()
