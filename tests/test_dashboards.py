"""The dashboard and the alerts, evaluated by a Prometheus that reads a service after some turns."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import AgentClient, AgentError
from app.demo.prometheus import arguments_of
from app.schema import RunEvent
from docs.dashboards.build import ROWS, dashboard
from telemetry.metrics.figures import FIGURES
from telemetry.metrics.instruments import RECORDED
from telemetry.metrics.prometheus_names import prometheus_name
from telemetry.testing import Receiver
from tests.parts import missing
from tests.processes import ROOT, free_port, start, until

ALERTS = ROOT / "docs" / "dashboards" / "alerts.yml"
PANELS = {
    f"{title}: {legend}": expression
    for charts in ROWS.values()
    for title, _, expressions in charts
    for legend, expression in expressions.items()
}
# Nothing of this happens to the turns below.
QUIET = (
    "Errors a second: model",
    "Errors a second: tool",
    "Spans a second: dropped",
    "Failures of tracing",
)
# Of both uses together.
TURNS = 6
SCRAPE = """\
global: {{scrape_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: agent-api
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.turns: set[str] = set()

    def get(self, what: str, **parameters: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=10)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[Mapping[str, Any]]:
        return self.get("query", query=expression)["result"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has read the metrics of turns that succeeded or failed, and of votes."""
    program = shutil.which("prometheus")
    if program is None or not find_spec("prometheus_client"):
        missing("prometheus", "apt-get install prometheus, and the extra `prometheus`")
    folder = tmp_path_factory.mktemp("prometheus")
    port, page, own = (free_port() for _ in range(3))
    env = {
        "PORT": str(port),
        "DATA_DIR": str(folder),
        "TELEMETRY_SPOOL_DIR": str(folder / "spool"),
        "DEMO_PACE_S": "0",
        "MODEL_PRICES": "demo=1/2",
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(page),
    }
    config = folder / "prometheus.yml"
    config.write_text(SCRAPE.format(port=page, rules=ALERTS))
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
        command = [program, *arguments_of(config, folder / "data", own)]
        stack.enter_context(start(command, {}, f"http://127.0.0.1:{own}/-/ready"))
        service = [sys.executable, "-m", "tests.flawed_agents"]
        stack.enter_context(start(service, env, url := f"http://127.0.0.1:{port}/health"))
        running = Prometheus(f"http://127.0.0.1:{own}")
        use(url.removesuffix("/health"))
        until(lambda: running.query('agent_turns_total{turn_status="failed"}'))
        # A rate counts what comes after the first look.
        use(url.removesuffix("/health"))
        until(lambda: running.query('rate(agent_turns_total{turn_status="failed"}[1m]) > 0'))
        # Spans are sent later than metrics are read.
        until(lambda: len(_turns(receiver)) == TURNS)
        running.turns = _turns(receiver)
        yield running


def _turns(receiver: Receiver) -> set[str]:
    return {span.trace_id for span in receiver.spans if span.name == "turn"}


def use(url: str) -> None:
    """Send turns and a vote."""
    events = [*AgentClient(url, "chatbot").stream("What is 12*34?")]
    (run,) = [event for event in events if isinstance(event, RunEvent)]
    vote = {"run_id": run.run_id, "key": "thumbs", "score": 1}
    assert httpx.post(f"{url}/feedback", json=vote, timeout=30).is_success
    for agent in ("broken_node", "chatbot"):
        with pytest.raises(AgentError) if agent == "broken_node" else ExitStack():
            AgentClient(url, agent).invoke("What is 2*3?")


@pytest.mark.parametrize("panel", PANELS)
def test_each_panel_shows_something(prometheus: Prometheus, panel: str) -> None:
    """Its expression is valid, and has a value after a few turns, unless nothing of the kind has happened."""
    expression = PANELS[panel].replace("$job", "agent-.*").replace("$__rate_interval", "1m")
    found = prometheus.query(expression)
    assert found or panel.startswith(QUIET)


def test_an_exemplar_leads_to_the_trace(prometheus: Prometheus) -> None:
    """Prometheus has kept, with each bucket of the durations, the trace of the latest turn that took so long."""
    now = time.time()
    expression = "gen_ai_invoke_agent_duration_seconds_bucket"
    series = prometheus.get("query_exemplars", query=expression, start=now - 600, end=now + 60)
    kept = {each["labels"]["trace_id"] for one in series for each in one["exemplars"]}
    assert kept
    assert kept <= prometheus.turns


def test_alerts_are_loaded_and_healthy(prometheus: Prometheus) -> None:
    """Prometheus evaluates each rule without an error, and the one for failed turns sees the failed turn."""
    until(lambda: all(rule["health"] == "ok" for group in groups(prometheus) for rule in group["rules"]))
    (failing,) = [rule for group in groups(prometheus) for rule in group["rules"] if rule["name"] == "TurnsFail"]
    assert [each["metric"]["gen_ai_agent_name"] for each in prometheus.query(failing["query"])] == ["broken_node"]


def groups(prometheus: Prometheus) -> list[Mapping[str, Any]]:
    return prometheus.get("rules")["groups"]


def test_the_rules_are_well_formed() -> None:
    """Prometheus's own checker accepts the file."""
    if not (promtool := shutil.which("promtool")):
        missing("promtool", "apt-get install prometheus")
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_metric_in_them_is_ours() -> None:
    """A metric that was renamed is missed here, also where Prometheus is not installed."""
    every = (*RECORDED, *(instrument for instrument, _ in FIGURES))
    known = {prometheus_name(each.name, each.unit, is_counter=each.kind.endswith("counter")) for each in every}
    known.add("http_server_request_duration_seconds")
    text = ALERTS.read_text() + " ".join(PANELS.values())
    used = set(re.findall(r"\b(?:agent|telemetry|gen_ai|http)_[a-z_]+(?=[{\[]| >)", text))
    assert used
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in used} <= known


def test_the_file_is_that_of_the_list() -> None:
    """docs/dashboards/agents.json is what `make docs` writes."""
    assert json.loads(Path(ROOT, "docs", "dashboards", "agents.json").read_text()) == dashboard()
