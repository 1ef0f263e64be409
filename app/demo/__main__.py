"""`python -m app.demo` runs the demo."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from dotenv import load_dotenv
from pydantic import ValidationError

import telemetry
from app.client import AgentClient, AgentError
from app.demo import prometheus
from app.demo.processes import LOOPBACK, DemoProcess, check_ports, run_processes
from app.demo.settings import DemoError, DemoSettings
from app.demo.turn import send_message, show_trace, trace_page
from telemetry.settings import SettingsError, load_settings, sentence
from telemetry.settings.cli_help import take_no_arguments

COLLECTOR = Path("otel-collector/dist/otelcol")
QUESTION = "What is 12*34?"


def main() -> int:
    """Run the demo; the exit status is 0 only if the turn and its trace are complete."""
    description = "Start the viewer, the service and the chat on this machine, send one turn and show its trace."
    options = ("port", "ui_port", "viewer_port", "data_dir", "demo_once", "collector", "prometheus")
    take_no_arguments("app.demo", description, DemoSettings, options)
    # SIGTERM ends the demo as Ctrl-C does: every process is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load_dotenv(".env")
    try:
        return run(DemoSettings())
    except KeyboardInterrupt:
        return 0
    except (DemoError, SettingsError, AgentError) as error:
        print(error, file=sys.stderr)
    except ValidationError as error:
        print(sentence(error, DemoSettings), file=sys.stderr)
    return 1


def run(settings: DemoSettings) -> int:
    """Start the processes, send the turn, show its trace, and keep running unless `demo_once` is set."""
    chat = _chat(settings)
    service = _service(settings, prometheus.environment(load_settings()) if settings.prometheus else {})
    os.environ |= {"HOST": LOOPBACK, "AGENT_URL": service.url}
    # Every process keeps its files in the demo's folder, unless a setting names another one.
    for name, file in {"VIEWER_DB": "viewer.db", "TELEMETRY_SPOOL_DIR": "spool"}.items():
        os.environ[name] = os.environ.get(name) or str(settings.data_dir / file)
    tracing = load_settings()
    viewer = None
    if tracing.enabled and tracing.exporter == "otlp" and tracing.endpoint is None:
        viewer = _viewer(settings)
    collector = _collector(settings) if settings.collector else None
    reader = prometheus.process(settings, tracing) if settings.prometheus and tracing.enabled else None
    processes = [process for process in (viewer, collector, service, chat, reader) if process]
    check_ports(processes)
    if viewer:
        _send_traces_to_viewer(viewer, settings)
    if collector:
        _send_traces_through_collector(collector, settings)
    with run_processes(processes, settings.data_dir / "logs"):
        urls = {process.name: process.url for process in processes}
        whole = show_turn(settings, urls)
        if not settings.demo_once:
            print("\nCtrl-C stops everything.", flush=True)
            signal.pause()
    return 0 if whole else 1


def show_turn(settings: DemoSettings, urls: Mapping[str, str]) -> bool:
    """Send one turn and print its answer, its trace and its metrics; return False if some of it did not arrive."""
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else None
    telemetry.configure("demo")
    with telemetry.suppress_instrumentation():
        agent = AgentClient(urls["service"], auth_secret=secret).info().default_agent
    turn = send_message(AgentClient(urls["service"], agent, auth_secret=secret), QUESTION)
    print(f"{QUESTION}\n{turn.answer}\n", flush=True)
    telemetry.shutdown()
    whole = show_trace(turn.run, urls.get("viewer"))
    print(f"chat    {urls['chat']}/?thread_id={turn.run.thread_id}")
    if "prometheus" in urls:
        trace_id = turn.run.trace_id if turn.run.sampled else None
        link = trace_page(urls["viewer"], trace_id) if trace_id and "viewer" in urls else turn.run.trace_url
        whole &= prometheus.show_metrics(urls["prometheus"], trace_id, link)
    return whole


def _viewer(settings: DemoSettings) -> DemoProcess:
    return DemoProcess("viewer", ["-m", "telemetry.viewer"], "VIEWER_PORT", settings.viewer_port, "/api/public/health")


def _collector(settings: DemoSettings) -> DemoProcess:
    configs = [f"--config=otel-collector/config/{name}.yaml" for name in ("shared", "stateless")]
    health = f"http://{LOOPBACK}:{settings.collector_health_port}/"
    return DemoProcess("collector", configs, "COLLECTOR_PORT", settings.collector_port, health, str(COLLECTOR))


def _service(settings: DemoSettings, environment: Mapping[str, str]) -> DemoProcess:
    return DemoProcess("service", ["-m", "app"], "PORT", settings.port, "/health", environment=environment)


def _chat(settings: DemoSettings) -> DemoProcess:
    flags = ["--server.headless=true", "--browser.gatherUsageStats=false"]
    bind = [f"--server.address={LOOPBACK}", f"--server.port={settings.ui_port}"]
    command = ["-m", "streamlit", "run", "ui/serve.py", *flags, *bind]
    return DemoProcess("chat", command, "UI_PORT", settings.ui_port, "/_stcore/health")


def _send_traces_to_viewer(viewer: DemoProcess, settings: DemoSettings) -> None:
    os.environ["LANGFUSE_HOST"] = viewer.url
    os.environ["LANGFUSE_PUBLIC_KEY"] = settings.viewer_public_key
    os.environ["LANGFUSE_SECRET_KEY"] = settings.viewer_secret_key.get_secret_value()


def _send_traces_through_collector(collector: DemoProcess, settings: DemoSettings) -> None:
    if not COLLECTOR.exists():
        raise DemoError("The collector is not built: make collector, or leave COLLECTOR unset.")
    tracing = load_settings()
    if tracing.endpoint:
        os.environ["COLLECTOR_ENDPOINT"] = tracing.endpoint.removesuffix("/v1/traces")
        os.environ["COLLECTOR_AUTHORIZATION"] = tracing.headers.get("authorization", "")
    # An empty variable of .env would be an empty port to the collector.
    os.environ["COLLECTOR_PORT"] = str(settings.collector_port)
    os.environ["COLLECTOR_HEALTH_PORT"] = str(settings.collector_health_port)
    os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{collector.url}/v1/traces"


if __name__ == "__main__":
    sys.exit(main())
