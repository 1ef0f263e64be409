"""Prometheus beside the demo: it reads the service's metrics, and names the trace behind one of them."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

import telemetry
from app.demo.processes import LOOPBACK, DemoProcess, attempts
from app.demo.settings import DemoError, DemoSettings
from telemetry.settings import Settings

ARRIVAL_SECONDS = 30
DURATION = "gen_ai_invoke_agent_duration_seconds_bucket"
PAGE = "graph?g0.expr=agent_turns_total&g0.tab=1&g1.expr=gen_ai_client_token_usage_sum&g1.tab=1"
CONFIG = """\
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: agent-api
    static_configs: [{{targets: ["{target}"]}}]
"""


def environment(tracing: Settings) -> dict[str, str]:
    """Return the variables with which the service serves its metrics."""
    named = dict.fromkeys((*tracing.metrics_exporters, "prometheus"))
    return {"OTEL_METRICS_EXPORTER": ",".join(named)}


def process(settings: DemoSettings, tracing: Settings) -> DemoProcess:
    """Return the process of Prometheus, which keeps its data in the demo's folder."""
    program = shutil.which("prometheus")
    if program is None:
        raise DemoError("Prometheus is not installed: apt-get install prometheus, or leave PROMETHEUS unset.")
    folder = settings.data_dir / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(target=f"{tracing.metrics_page_host}:{tracing.metrics_page_port}"))
    arguments = arguments_of(config, folder / "data", settings.prometheus_port)
    return DemoProcess("prometheus", arguments, "PROMETHEUS_PORT", settings.prometheus_port, "/-/ready", program)


def arguments_of(config: Path, data: Path, port: int) -> list[str]:
    """Return the arguments of a Prometheus that keeps exemplars."""
    return [
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--enable-feature=exemplar-storage",
    ]


def show_metrics(url: str, trace_id: str | None, trace_url: str | None) -> bool:
    """Print the page with the turn's metrics and the exemplar of its duration; return False if it did not arrive."""
    with telemetry.suppress_instrumentation():
        for _ in attempts(ARRIVAL_SECONDS):
            found = [each for each in exemplars(url) if each["labels"].get("trace_id") == trace_id]
            if found or (trace_id is None and has_turns(url)):
                break
        else:
            print("Prometheus has not received the metrics of the turn.")
            return False
    print(f"metrics {url}/{PAGE}")
    for each in found[:1]:
        print(f"exemplar of {DURATION}: {float(each['value']):.2f} s, trace {trace_url or trace_id}")
    return True


def exemplars(url: str) -> list[Mapping[str, Any]]:
    """Return the exemplars of turns' durations in the last hour."""
    now = time.time()
    series = _get(url, "query_exemplars", query=DURATION, start=now - 3600, end=now + 60)
    return [exemplar for each in series for exemplar in each["exemplars"]]


def has_turns(url: str) -> bool:
    """Return whether Prometheus knows any turn."""
    return bool(_get(url, "query", query="agent_turns_total")["result"])


def _get(url: str, what: str, **parameters: Any) -> Any:
    answer = httpx.get(f"{url}/api/v1/{what}", params=parameters, timeout=5, trust_env=False)
    return answer.raise_for_status().json()["data"]
