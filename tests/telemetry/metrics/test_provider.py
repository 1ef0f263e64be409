"""Where metrics go: nowhere unless asked, over OTLP or to Prometheus. Each test is a process of its own."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from telemetry.settings import Settings, SettingsError, load_settings
from telemetry.testing import Receiver
from tests.otlp_signals import Signals, run_program
from tests.parts import missing
from tests.processes import free_port

TURN = """
import telemetry
telemetry.configure("measured")
with telemetry.turn("support"), telemetry.span("look up", kind="TOOL"):
    pass
"""


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as running:
        yield running


def run(code: str, folder: Path, receiver: Receiver, **environ: str) -> str:
    """What the program prints."""
    done = run_program(code, folder, receiver, **environ)
    return done.stdout + done.stderr


def to(signals: Signals) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{signals.endpoint}/v1/metrics"}


def test_sent_to_their_endpoint(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """Metrics go to the endpoint that is named for them, with the names of the process, spans to their own."""
    headers = {"OTEL_EXPORTER_OTLP_METRICS_HEADERS": "authorization=Bearer%20m"}
    assert run(f"{TURN}\ntelemetry.shutdown()", tmp_path, receiver, **to(signals), **headers) == ""
    assert {"agent.turns", "gen_ai.invoke_agent.duration", "gen_ai.execute_tool.duration"} <= signals.metrics().keys()
    assert signals.metrics()["telemetry.spans.sent"].sum.is_monotonic
    (resource,) = {tuple(sorted(each.items())) for each in signals.resources()}
    assert {"service.name": "measured"}.items() <= dict(resource).items()
    assert dict(resource)["service.instance.id"]
    assert signals.headers[0]["authorization"] == "Bearer m"
    assert sorted(span.name for span in receiver.spans) == ["look up", "turn"]


def test_requests_and_calls_are_bounded(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """Requests are timed by their route, unknown paths together; calls without the addresses that they went to."""
    code = """
        import os
        import telemetry
        telemetry.configure("service")
        import httpx
        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        app = FastAPI()
        app.get("/items/{item}")(lambda item: item)
        telemetry.instrument(app)
        with TestClient(app) as client:
            for at in range(9):
                client.get(f"/items/{at}")
                client.get(f"/nothing/{at}")
            for host in ("127.0.0.1", "localhost"):
                httpx.get(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"].replace("127.0.0.1", host), trust_env=False)
        telemetry.shutdown()
    """
    run(code, tmp_path, receiver, **to(signals))
    served = signals.metrics()["http.server.request.duration"]
    routes = sorted(
        "".join(each.value.string_value for each in point.attributes if each.key == "http.route")
        for point in served.histogram.data_points
    )
    assert (served.unit, routes) == ("s", ["", "/items/{item}"])
    (called,) = signals.metrics()["http.client.request.duration"].histogram.data_points
    assert called.count == 2
    assert {each.key for each in called.attributes} <= {
        "http.request.method",
        "http.response.status_code",
        "error.type",
    }


def test_an_exemplar_is_sent(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """The trace id of an exemplar is that of the span that was sent."""
    run(f"{TURN}\ntelemetry.shutdown()", tmp_path, receiver, **to(signals))
    (point,) = signals.metrics()["gen_ai.invoke_agent.duration"].histogram.data_points
    (turn,) = [span for span in receiver.spans if span.name == "turn"]
    assert [each.trace_id.hex() for each in point.exemplars] == [turn.trace_id]


def test_the_resource_is_redacted(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """A secret among the attributes of the process is redacted, as it is in spans."""
    secret = "sk-" + "a1B2" * 10
    resource = {"OTEL_RESOURCE_ATTRIBUTES": f"team={secret}"}
    run(f"{TURN}\ntelemetry.shutdown()", tmp_path, receiver, **to(signals), **resource)
    assert "[redacted" in signals.resources()[0]["team"]
    assert not any(secret.encode() in request.SerializeToString() for request in signals.requests)


def test_sent_without_a_shutdown(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """A script that just ends sends them, as it sends its spans."""
    assert run(TURN, tmp_path, receiver, **to(signals)) == ""
    assert "agent.turns" in signals.metrics()


def test_nothing_is_sent_or_imported_unless_asked(receiver: Receiver, tmp_path: Path) -> None:
    """With an endpoint for spans alone there are no metrics: no request, no thread, no import of their SDK."""
    code = f"""
{TURN}
telemetry.shutdown()
import sys, threading
print([name for name in sys.modules if name.startswith(("opentelemetry.exporter", "telemetry.metrics.provider"))])
print([thread.name for thread in threading.enumerate() if "etric" in thread.name])
print(telemetry.stats().get("metrics"))
"""
    assert run(code, tmp_path, receiver).split("\n")[:3] == ["[]", "[]", "None"]
    assert {request.path for request in receiver.requests} == {"/v1/traces"}


def test_a_backend_that_takes_none(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """Refused metrics change nothing for the program and its spans; the figures count them."""
    signals.status = 404
    code = f"{TURN}\nprint(telemetry.flush(30))\nprint(telemetry.stats()['metrics'])\ntelemetry.shutdown()"
    said = run(code, tmp_path, receiver, **to(signals))
    assert said.startswith("True\n{'sent': 0, 'failed': 1}\n")
    assert len(receiver.spans) == 2


def test_a_backend_that_is_down(receiver: Receiver, tmp_path: Path) -> None:
    """Neither a flush nor the end of the program waits for it longer than it says, and the spans are sent."""
    address = f"http://127.0.0.1:{free_port()}/v1/metrics"
    code = f"""
{TURN}
import time
for end in (lambda: telemetry.flush(0.5), telemetry.shutdown):
    began = time.monotonic()
    end()
    print(time.monotonic() - began < 9)
"""
    said = run(code, tmp_path, receiver, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=address)
    assert re.findall("True|False", said) == ["True", "True"]
    assert len(receiver.spans) == 2


def test_after_a_fork(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """A child sends its own metrics under a name of its own."""
    code = f"""
{TURN}
import os, sys
child = os.fork()
with telemetry.turn("child" if child == 0 else "parent"):
    pass
telemetry.flush(30)
if child == 0:
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
    run(code, tmp_path, receiver, **to(signals))
    agents: dict[str, set[str]] = {}
    for request in signals.requests:
        for part in request.resource_metrics:
            names = {each.key: each.value.string_value for each in part.resource.attributes}
            for metric in (metric for scope in part.scope_metrics for metric in scope.metrics):
                if metric.name == "agent.turns":
                    found = {each.value.string_value for point in metric.sum.data_points for each in point.attributes}
                    agents.setdefault(names["service.instance.id"], set()).update(found - {"completed"})
    assert sorted(map(sorted, agents.values())) == [["child", "support"], ["parent", "support"]]


def test_a_provider_of_the_program(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """A meter provider that is there already stays, and its own readers get our metrics; nothing is sent twice."""
    code = f"""
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
theirs = MeterProvider([reader])
metrics.set_meter_provider(theirs)
{TURN}
telemetry.shutdown()
assert metrics.get_meter_provider() is theirs
data = reader.get_metrics_data()
print(sorted(m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if "agent" in m.name))
"""
    said = run(code, tmp_path, receiver, **to(signals))
    assert "['agent.turns', 'gen_ai.invoke_agent.duration']" in said
    assert "a meter provider was already set" in said
    assert signals.requests == []


def test_the_page_for_prometheus(receiver: Receiver, tmp_path: Path) -> None:
    """Prometheus reads the metrics with an exemplar that names the trace; a second process runs on without a page."""
    if not find_spec("prometheus_client"):
        missing("prometheus-client", "install the extra `prometheus`")
    port = str(free_port())
    code = f"""
{TURN}
import subprocess, sys, urllib.request
accept = {{"Accept": "application/openmetrics-text; version=1.0.0"}}
page = urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:{port}/metrics", headers=accept))
print(page.read().decode())
done = subprocess.run([sys.executable, "-c", "import telemetry; telemetry.configure('second')"], capture_output=True)
assert done.returncode == 0, done.stderr
assert b"port {port} cannot be used" in done.stderr, done.stderr
telemetry.shutdown()
"""
    page = run(code, tmp_path, receiver, OTEL_METRICS_EXPORTER="prometheus", OTEL_EXPORTER_PROMETHEUS_PORT=port)
    (turn,) = [span for span in receiver.spans if span.name == "turn"]
    assert 'agent_turns_total{gen_ai_agent_name="support",turn_status="completed"} 1.0' in page
    bucket = r'gen_ai_invoke_agent_duration_seconds_bucket\{gen_ai_agent_name="support",le="0.1"\} 1.0 # \{(.*?)\} '
    (labels,) = re.findall(bucket, page)
    assert f'trace_id="{turn.trace_id}"' in labels
    assert 'target_info{service_instance_id="' in page


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"OTEL_METRICS_EXPORTER": "statsd"}, "OTEL_METRICS_EXPORTER input should be 'otlp', 'prometheus'"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "here"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is not an address"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL input should be greater than"),
    ],
)
def test_bad_settings(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], sentence: str) -> None:
    """They are refused at start, in a sentence that names the variable."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=sentence):
        load_settings()


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://l.example/api/public/otel"}, None),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://p:9090/otlp"}, "http://p:9090/otlp"),
        ({}, None),
    ],
)
def test_the_endpoint(environ: dict[str, str], endpoint: str | None) -> None:
    """It is the one for metrics, or that of all signals; never Langfuse's, which takes none."""
    assert Settings.model_validate(environ).metrics_endpoint == endpoint
