"""The figures of delivery, for health checks."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry.configure import activate, deactivate
from telemetry.delivery.writer import SpoolProcessor
from telemetry.otel.request_filter import RequestFilter
from telemetry.pipeline import Pipeline
from telemetry.provider import build_provider
from telemetry.settings import Settings
from telemetry.testing.receiver import Receiver
from tests.processes import until
from tests.telemetry.spooling import encode, hasten, settings


@pytest.fixture
def active(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    hasten(monkeypatch)
    chosen = settings(receiver.endpoint, tmp_path)
    last = SpoolProcessor(chosen, encode, 0.01)
    last.writer.start()
    provider = build_provider(chosen, "test", [last])
    activate(Pipeline(provider), chosen, RequestFilter(last), last)
    yield chosen
    deactivate()
    provider.shutdown()


def section(name: str) -> dict[str, Any]:
    return telemetry.stats()[name]


def test_with_tracing_off_the_figures_say_so() -> None:
    """There is an answer all the same."""
    figures = telemetry.stats()
    assert figures["tracing"] is False
    assert figures["process"]["pid"] == os.getpid()
    assert "backend" not in figures


def test_success_is_shown(active: Settings) -> None:
    """What was written and delivered, when last, and how long the way to the disk is."""
    with telemetry.span("s"):
        pass
    until(lambda: section("process")["delivered"] == 1)
    figures = telemetry.stats()
    assert figures["backend"]["state"] == "ok"
    assert figures["backend"]["last_success"]
    assert figures["backend"]["endpoint"] == active.endpoint
    assert (figures["process"]["committed"], figures["process"]["waiting"]) == (1, 0)
    assert set(figures["process"]["lag_ms"]) == {"p50", "p99", "max"}


@pytest.mark.usefixtures("active")
def test_a_refusal_is_shown(receiver: Receiver) -> None:
    """Wrong keys are not a silence: the state, the error and what waits say so."""
    receiver.answer = 401
    with telemetry.span("s"):
        pass
    until(lambda: section("backend")["state"] == "refusing")
    until(lambda: section("spool")["spans"] == 1)
    figures = telemetry.stats()
    assert figures["backend"]["last_error"]["what"].startswith("401")
    assert figures["spool"]["files"] == 1
    assert figures["spool"]["bytes"] > 0


@pytest.mark.usefixtures("active")
def test_they_are_plain_data() -> None:
    """A health route answers with them as they are."""
    assert json.loads(json.dumps(telemetry.stats())) == telemetry.stats()
