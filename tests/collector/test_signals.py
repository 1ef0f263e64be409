"""Metrics and logs through the collector, metrics of spans, and all three signals to several backends at once."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from telemetry.testing import Receiver
from tests import processes
from tests.collector.otelcol import BINARY, CONFIGS, FOLDER, Collector, config_arguments, span
from tests.otlp_signals import Signals

LAYERS = (("metrics",), ("logs",), ("metrics", "spanmetrics"), ("metrics", "spanmetrics", "logs"))
CALLED = re.compile(r"^traces_span_metrics_calls_total\{.*?\} 1\.0.*$", re.MULTILINE)
SECRET = "sk-proj-Zx81hQ2mV0pLr5tYw9Kc3NbEa7DfGu6J"
PROGRAM = """
import logging
import telemetry
telemetry.configure("program")
with telemetry.turn("support"), telemetry.span("look up", kind="TOOL"):
    logging.getLogger("shop").warning("an order")
telemetry.shutdown()
"""


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as running:
        yield running


@pytest.mark.parametrize("layers", LAYERS, ids="+".join)
@pytest.mark.parametrize("config", CONFIGS)
def test_every_layer_fits_every_configuration(config: str, layers: tuple[str, ...], tmp_path: Path) -> None:
    """What is added for another signal is valid on top of each configuration."""
    added = [f"--config={FOLDER / 'config' / name}.yaml" for name in layers]
    env = {"COLLECTOR_ENDPOINT": "http://127.0.0.1:9", "COLLECTOR_STATE": str(tmp_path)}
    argv = [str(BINARY), "validate", *config_arguments(config), *added]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_signals_to_several_backends(backend: Receiver, signals: Signals, tmp_path: Path) -> None:
    """Spans reach two backends, metrics a third and a page for Prometheus with exemplars, logs a fourth."""
    page = processes.free_port()
    with Receiver() as second:
        env = {
            "COLLECTOR_EXPORTERS": "[otlp_http/backend, otlp_http/second]",
            "COLLECTOR_SECOND_ENDPOINT": second.endpoint,
            "COLLECTOR_METRICS_EXPORTERS": "[prometheus, otlp_http/metrics]",
            "COLLECTOR_METRICS_ENDPOINT": f"{signals.endpoint}/v1/metrics",
            "COLLECTOR_PROMETHEUS_PORT": str(page),
            "COLLECTOR_LOGS_ENDPOINT": f"{signals.endpoint}/v1/logs",
        }
        layers = ("metrics", "logs")
        with Collector("stateless", backend.endpoint, tmp_path, env, layers=layers) as collector:
            run(collector, tmp_path)
            (turn,) = [one for one in backend.wait(2) if one.name == "turn"]
            assert {one.span_id for one in second.wait(2)} == {one.span_id for one in backend.spans}
            processes.until(lambda: "agent.turns" in signals.metrics() and signals.logs())
            read = opened(page)
    assert {record.trace_id.hex() for record in signals.logs()} == {turn.trace_id}
    assert 'agent_turns_total{gen_ai_agent_name="support"' in read
    assert f'trace_id="{turn.trace_id}"' in read


def opened(page: int) -> str:
    """What Prometheus reads."""
    return httpx.get(f"http://127.0.0.1:{page}/metrics", headers={"accept": "application/openmetrics-text"}).text


def run(collector: Collector, folder: Path) -> None:
    """A program that sends all its signals to the collector."""
    env = {
        **processes.UNSET,
        "TELEMETRY_SPOOL_DIR": str(folder / "spool"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
    }
    argv = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(argv, cwd=processes.ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_second_redaction_of_logs_and_metrics(backend: Receiver, signals: Signals, tmp_path: Path) -> None:
    """A secret that a sender left in an attribute, or in a log record's text, does not pass."""
    env = {
        "COLLECTOR_METRICS_EXPORTERS": "[otlp_http/metrics]",
        "COLLECTOR_METRICS_ENDPOINT": f"{signals.endpoint}/v1/metrics",
        "COLLECTOR_LOGS_ENDPOINT": f"{signals.endpoint}/v1/logs",
    }
    attribute = {"key": "note", "value": {"stringValue": f"with {SECRET}"}}
    record = {"body": {"stringValue": f"the key is {SECRET}"}, "attributes": [attribute]}
    point = {"asInt": "1", "attributes": [attribute], "timeUnixNano": "1"}
    metric = {"name": "n", "sum": {"dataPoints": [point], "isMonotonic": True, "aggregationTemporality": 2}}
    bodies = {
        "logs": {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]},
        "metrics": {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]},
    }
    with Collector("stateless", backend.endpoint, tmp_path, env, layers=("metrics", "logs")) as collector:
        for signal, body in bodies.items():
            assert httpx.post(f"{collector.endpoint}/v1/{signal}", json=body, timeout=30).status_code == 200
        signals.wait(2)
    sent = b"".join(request.SerializeToString() for request in signals.requests)
    assert SECRET.encode() not in sent
    assert b"the key is" in sent
    assert b"note" in sent


def test_metrics_of_spans(backend: Receiver, tmp_path: Path) -> None:
    """The collector counts and times spans itself, also those that sampling drops, with exemplars."""
    page = processes.free_port()
    env = {
        "COLLECTOR_PROMETHEUS_PORT": str(page),
        "COLLECTOR_SPANMETRICS_INTERVAL": "1s",
        "COLLECTOR_SAMPLING_PERCENTAGE": "0",
    }
    made = span("turn", status="ERROR", **{"turn.status": "failed", "openinference.span.kind": "AGENT"})
    layers = ("metrics", "spanmetrics")
    with Collector("stateless", backend.endpoint, tmp_path, env, layers=layers) as collector:
        assert collector.send(made) == 200
        processes.until(lambda: made.trace_id in opened(page))
        # A series begins at zero.
        (calls,) = processes.until(lambda: CALLED.findall(opened(page)))
    assert 'span_name="turn"' in calls
    assert 'turn_status="failed"' in calls
    assert 'status_code="STATUS_CODE_ERROR"' in calls
    assert backend.spans == []
