"""Other backends show a turn by endpoint alone: `pytest -m backends`, with `phoenix`, `mlflow` and so on on the PATH.

docs/backends.md says how each of them is installed.
"""

import re
import shutil
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from app.client import AgentClient
from app.demo.prometheus import arguments_of
from telemetry.settings import Settings
from tests.collector.otelcol import BINARY, FOLDER, Collector
from tests.processes import free_port, start, until

pytestmark = pytest.mark.backends
SHAPES: Sequence[str] = get_args(Settings.model_fields["shape"].annotation)
QUESTION, ANSWER = "What is 12*34?", "The calculator tool says: 408"
PATIENCE_S = 900  # they make their databases first
NAMES = {"POST /{agent_id}/invoke", "turn", "chatbot", "model", "DemoModel", "tools_condition", "tools", "calculator"}


@contextmanager
def one_turn(folder: Path, endpoint: str, **environ: str) -> Iterator[str]:
    """The trace id of a turn whose spans go to this endpoint, as long as the service runs that sends them."""
    url = f"http://127.0.0.1:{free_port()}"
    env = {"PORT": url.rsplit(":", 1)[1], "DATA_DIR": str(folder), "TELEMETRY_SPOOL_DIR": str(folder / "spool")}
    env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **environ}
    with start([sys.executable, "-m", "app"], env, f"{url}/health", PATIENCE_S):
        answer = AgentClient(url, "chatbot", user_id="ada").invoke(QUESTION, thread_id="sums")
        assert answer.trace_id
        yield answer.trace_id


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed: {package}")
    return found


@contextmanager
def server(argv: list[str], port: int, path: str, env: Mapping[str, str]) -> Iterator[str]:
    with start(argv, env, f"http://127.0.0.1:{port}{path}", PATIENCE_S):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    argv = [program("phoenix", "uv tool install arize-phoenix"), "serve"]
    port, folder = free_port(), tmp_path_factory.mktemp("phoenix")
    env = {"PHOENIX_WORKING_DIR": str(folder), "PHOENIX_PORT": str(port), "PHOENIX_HOST": "127.0.0.1"}
    env |= {"PHOENIX_GRPC_PORT": str(free_port()), "PHOENIX_TELEMETRY_ENABLED": "false"}
    with server(argv, port, "/healthz", env) as url:
        yield url


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary, port = program("mlflow", "uv tool install mlflow"), free_port()
    store = ["--backend-store-uri", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"]
    argv = [binary, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    with server(argv, port, "/health", {}) as url:
        yield url


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger: where it takes spans, and where it is asked for them."""

    endpoint: str
    page: str

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace so far, each with its tags as a dictionary."""
        found = httpx.get(f"{self.page}/api/traces/{trace_id}", timeout=60)
        if found.status_code == 404:
            return []
        (trace,) = found.json()["data"]
        return [{**span, "tags": {tag["key"]: tag["value"] for tag in span["tags"]}} for span in trace["spans"]]


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    binary = program("jaeger", "see docs/backends.md")
    otlp, page, grpc = (free_port() for _ in range(3))
    config = tmp_path_factory.mktemp("jaeger") / "jaeger.yaml"
    config.write_text(JAEGER.format(otlp=otlp, page=page, grpc=grpc))
    with server([binary, "--config", str(config)], page, "/", {}) as url:
        yield Jaeger(f"http://127.0.0.1:{otlp}", url)


JAEGER = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {{metrics: {{level: none}}}}
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 1000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{page}"}}
    grpc: {{endpoint: "127.0.0.1:{grpc}"}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{otlp}"}}}}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""


def phoenix_spans(url: str, trace_id: str) -> list[dict[str, Any]]:
    """The spans of a trace so far."""
    found = httpx.get(f"{url}/v1/projects/default/spans", params={"limit": 100, "trace_id": trace_id}, timeout=60)
    if found.status_code == 404:  # there is no project before its first span
        return []
    return [span for span in found.json()["data"] if span["context"]["trace_id"] == trace_id]


@pytest.mark.parametrize("shape", SHAPES)
def test_phoenix(phoenix: str, tmp_path: Path, shape: str) -> None:
    """Phoenix has the whole tree, the kinds and the session; in all formats but Langfuse's a model's chat as well."""
    with one_turn(tmp_path, phoenix, TELEMETRY_SHAPE=shape) as trace_id:
        until(lambda: len(phoenix_spans(phoenix, trace_id)) >= 11, 60)
        spans = phoenix_spans(phoenix, trace_id)
    by_name = {span["name"]: span for span in spans}
    assert by_name.keys() == NAMES
    assert {span["attributes"]["session.id"] for span in spans} == {"sums"}
    assert (by_name["DemoModel"]["span_kind"], by_name["calculator"]["span_kind"]) == ("LLM", "TOOL")
    root = next(span["attributes"] for span in spans if span["parent_id"] is None)
    assert (root["input.value"], root["output.value"]) == (QUESTION, ANSWER)
    models = [span["attributes"] for span in spans if span["name"] == "DemoModel"]
    assert all(model["llm.token_count.total"] > 0 for model in models)
    if shape != "langfuse":
        said = {model.get("llm.output_messages.0.message.content") for model in models}
        assert ANSWER in said
        assert {model["llm.input_messages.1.message.content"] for model in models} == {QUESTION}


@pytest.mark.parametrize("shape", SHAPES)
def test_mlflow(mlflow: str, tmp_path: Path, shape: str) -> None:
    """MLflow has the trace with its session, its user, its question, its answer and its tokens, in each format."""
    to_first = {"OTEL_EXPORTER_OTLP_HEADERS": "x-mlflow-experiment-id=0", "TELEMETRY_SHAPE": shape}
    with one_turn(tmp_path, mlflow, **to_first) as trace_id:
        where = {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]}

        def arrived() -> list[dict[str, Any]]:
            asked = httpx.post(f"{mlflow}/api/3.0/mlflow/traces/search", json={**where, "max_results": 50}, timeout=60)
            return [trace for trace in asked.json().get("traces", []) if trace["trace_id"] == f"tr-{trace_id}"]

        # The root comes last.
        until(lambda: any("response_preview" in trace for trace in arrived()), 60)
        (trace,) = arrived()
    assert (trace["state"], trace["request_preview"]) == ("OK", f'"{QUESTION}"')
    assert trace["response_preview"] == f'"{ANSWER}"'
    assert trace["trace_metadata"]["mlflow.trace.session"] == "sums"
    assert trace["trace_metadata"]["mlflow.trace.user"] == "ada"
    assert "mlflow.trace.tokenUsage" in trace["trace_metadata"]


@pytest.mark.parametrize("shape", SHAPES)
def test_jaeger(jaeger: Jaeger, tmp_path: Path, shape: str) -> None:
    """Jaeger has the whole tree and every attribute as a tag, in each format."""
    with one_turn(tmp_path, jaeger.endpoint, TELEMETRY_SHAPE=shape) as trace_id:
        until(lambda: len(jaeger.spans(trace_id)) >= 11, 60)
        spans = jaeger.spans(trace_id)
    assert {span["operationName"] for span in spans} == NAMES
    assert {span["tags"]["session.id"] for span in spans} == {"sums"}
    ids = {span["spanID"] for span in spans}
    (root,) = [span for span in spans if not span["references"]]
    assert {each["spanID"] for span in spans for each in span["references"]} <= ids
    assert root["operationName"] == "POST /{agent_id}/invoke"
    (tool,) = [span["tags"] for span in spans if span["operationName"] == "calculator"]
    assert tool["tool.success"] is True
    assert '{"expression":"12*34"}' in tool.values()


def test_one_turn_in_several_backends_at_once(phoenix: str, tmp_path: Path) -> None:
    """A collector sends a turn's spans to the viewer and to Phoenix, and its metrics to Prometheus, with its trace."""
    if not BINARY.exists():
        pytest.skip("the collector is not built: make collector")
    prometheus = program("prometheus", "apt-get install prometheus")
    viewer, page, own = free_port(), free_port(), free_port()
    key = b64encode(b"pk-lf-local:sk-lf-local").decode()
    env = {
        "COLLECTOR_AUTHORIZATION": f"Basic {key}",
        "COLLECTOR_EXPORTERS": "[otlp_http/backend, otlp_http/second]",
        "COLLECTOR_SECOND_ENDPOINT": phoenix,
        "COLLECTOR_PROMETHEUS_PORT": str(page),
    }
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: c, static_configs: [{{targets: ['127.0.0.1:{page}']}}]}}]\n"
    )
    # The collector's page has the exemplars of the latest export: Prometheus reads it more often than that.
    sent = {"TELEMETRY_SHAPE": "all", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "8000"}
    with ExitStack() as stack:
        running = [sys.executable, "-m", "telemetry.viewer"]
        settings = {"VIEWER_PORT": str(viewer), "VIEWER_DB": str(tmp_path / "viewer.db")}
        url = stack.enter_context(server(running, viewer, "/api/public/health", settings))
        collector = stack.enter_context(
            Collector("stateless", f"{url}/api/public/otel", tmp_path, env, layers=("metrics",))
        )
        stack.enter_context(server([prometheus, *arguments_of(config, tmp_path / "data", own)], own, "/-/ready", {}))
        trace_id = stack.enter_context(one_turn(tmp_path, collector.endpoint, **sent))
        asked = {"traceId": trace_id, "limit": "100"}

        def shown() -> set[str]:
            found = httpx.get(f"{url}/api/public/v2/observations", params=asked, auth=("pk-lf-local", "sk-lf-local"))
            return {each["name"] for each in found.json()["data"]}

        def exemplars() -> str:
            query = {"query": "gen_ai_invoke_agent_duration_seconds_bucket", "start": "0", "end": str(time.time() + 60)}
            return httpx.get(f"http://127.0.0.1:{own}/api/v1/query_exemplars", params=query).text

        until(lambda: shown() == NAMES, 60, lambda: str(shown()))
        until(lambda: {span["name"] for span in phoenix_spans(phoenix, trace_id)} == NAMES, 60)
        until(lambda: trace_id in exemplars(), 60, exemplars)


def test_the_collectors_own_output(tmp_path: Path) -> None:
    """A collector that only prints what it gets has every span, in its log."""
    if not BINARY.exists():
        pytest.skip("the collector is not built: make collector")
    overlay = tmp_path / "print.yaml"
    overlay.write_text("exporters:\n  debug:\n    verbosity: detailed\n")
    port, health = free_port(), free_port()
    configs = [f"--config={FOLDER / 'config' / name}.yaml" for name in ("shared", "stateless")]
    env = {"COLLECTOR_PORT": str(port), "COLLECTOR_HEALTH_PORT": str(health), "COLLECTOR_EXPORTERS": "[debug]"}
    env |= {f"COLLECTOR_{name}_PORT": str(free_port()) for name in ("METRICS", "ZPAGES")}
    env |= {"COLLECTOR_ENDPOINT": "http://127.0.0.1:9", "COLLECTOR_AUTHORIZATION": "Basic none"}
    argv = [str(BINARY), *configs, f"--config={overlay}"]
    to_collector = f"http://127.0.0.1:{port}"
    with (
        start(argv, env, f"http://127.0.0.1:{health}") as collector,
        one_turn(tmp_path, to_collector) as trace_id,
    ):
        until(lambda: collector.log.count(trace_id) >= 11, 60)
        said = collector.log
    assert set(re.findall(r"^    Name +: (.+)$", said, re.MULTILINE)) == NAMES
    assert "-> session.id: Str(sums)" in said
    assert "-> input.value: Str(What is 12*34?)" in said
