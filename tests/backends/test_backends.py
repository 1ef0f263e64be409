"""Other backends show a turn by endpoint alone: `pytest -m backends`, with `phoenix` and `mlflow` on the PATH.

`uv tool install arize-phoenix` and `uv tool install mlflow` bring them, each into an environment of its own.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import AgentClient
from tests.collector.otelcol import BINARY, FOLDER
from tests.processes import free_port, start, until

pytestmark = pytest.mark.backends
PATIENCE_S = 900  # they make their databases first
NAMES = {"POST /{agent_id}/invoke", "turn", "chatbot", "model", "DemoModel", "tools_condition", "tools", "calculator"}


@contextmanager
def one_turn(folder: Path, endpoint: str, **environ: str) -> Iterator[str]:
    """The trace id of a turn whose spans go to this endpoint, as long as the service runs that sends them."""
    url = f"http://127.0.0.1:{free_port()}"
    env = {"PORT": url.rsplit(":", 1)[1], "DATA_DIR": str(folder), "TELEMETRY_SPOOL_DIR": str(folder / "spool")}
    env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **environ}
    with start([sys.executable, "-m", "app"], env, f"{url}/health", PATIENCE_S):
        answer = AgentClient(url, "chatbot", user_id="ada").invoke("What is 12*34?", thread_id="sums")
        assert answer.trace_id
        yield answer.trace_id


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed: uv tool install {package}")
    return found


@contextmanager
def server(argv: list[str], port: int, path: str, env: Mapping[str, str]) -> Iterator[str]:
    with start(argv, env, f"http://127.0.0.1:{port}{path}", PATIENCE_S):
        yield f"http://127.0.0.1:{port}"


def test_phoenix(tmp_path: Path) -> None:
    """Phoenix has the whole tree, the kinds, the session, what was said and the tokens."""
    phoenix, port, grpc = program("phoenix", "arize-phoenix"), free_port(), free_port()
    env = {"PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"), "PHOENIX_PORT": str(port), "PHOENIX_HOST": "127.0.0.1"}
    env |= {"PHOENIX_GRPC_PORT": str(grpc), "PHOENIX_TELEMETRY_ENABLED": "false"}
    with server([phoenix, "serve"], port, "/healthz", env) as url, one_turn(tmp_path, url) as trace_id:

        def arrived() -> list[dict[str, Any]]:
            found = httpx.get(f"{url}/v1/projects/default/spans", params={"limit": 100}, timeout=60).json()["data"]
            return [span for span in found if span["context"]["trace_id"] == trace_id]

        until(lambda: len(arrived()) >= 11, 60)
        spans = arrived()
    by_name = {span["name"]: span for span in spans}
    assert by_name.keys() == NAMES
    root = next(span["attributes"] for span in spans if span["parent_id"] is None)
    assert root["input.value"] == "What is 12*34?"
    assert root["output.value"] == "The calculator tool says: 408"
    assert {span["attributes"]["session.id"] for span in spans} == {"sums"}
    assert (by_name["DemoModel"]["span_kind"], by_name["calculator"]["span_kind"]) == ("LLM", "TOOL")
    assert by_name["DemoModel"]["attributes"]["llm.token_count.total"] > 0


@pytest.mark.parametrize("shape", ["langfuse", "openinference", "genai"])
def test_mlflow(tmp_path: Path, shape: str) -> None:
    """MLflow has the trace with its session, its user, its question, its answer and its tokens, in each format."""
    mlflow, port = program("mlflow", "mlflow"), free_port()
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    argv = [mlflow, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    to_first = {"OTEL_EXPORTER_OTLP_HEADERS": "x-mlflow-experiment-id=0", "TELEMETRY_SHAPE": shape}
    with server(argv, port, "/health", {}) as url, one_turn(tmp_path, url, **to_first) as trace_id:
        where = {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]}

        def arrived() -> list[dict[str, Any]]:
            asked = httpx.post(f"{url}/api/3.0/mlflow/traces/search", json={**where, "max_results": 5}, timeout=60)
            return [trace for trace in asked.json().get("traces", []) if trace["trace_id"] == f"tr-{trace_id}"]

        # The root comes last.
        until(lambda: any("response_preview" in trace for trace in arrived()), 60)
        (trace,) = arrived()
    assert (trace["state"], trace["request_preview"]) == ("OK", '"What is 12*34?"')
    assert trace["response_preview"] == '"The calculator tool says: 408"'
    assert trace["trace_metadata"]["mlflow.trace.session"] == "sums"
    assert trace["trace_metadata"]["mlflow.trace.user"] == "ada"
    assert "mlflow.trace.tokenUsage" in trace["trace_metadata"]


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
