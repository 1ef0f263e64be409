"""`make demo`: the viewer, the service and the chat on this machine, and one turn whose trace is shown."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urljoin
from uuid import uuid4

import httpx
from dotenv import load_dotenv
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

import telemetry
from app.client import AgentClient, AgentError
from app.schema import EndEvent, ErrorEvent, MessageEvent, RunEvent, StreamEvent
from telemetry.settings import SettingsError, load_settings, sentence
from telemetry.usage import take_no_arguments

LOOPBACK = "127.0.0.1"
COLLECTOR = Path("otel-collector/dist/otelcol")
QUESTION = "What is 12*34?"
STARTUP_SECONDS = 60
ARRIVAL_SECONDS = 20

Port = Annotated[int, Field(ge=1, le=65535)]


class DemoError(Exception):
    """The demo cannot go on; its message says why and what to do."""


class Settings(BaseSettings):
    """Where the demo's parts listen, and whether it ends after its turn."""

    model_config = SettingsConfigDict(
        alias_generator=str.upper, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    port: Port = Field(default=8080, description="port of the service")
    ui_port: Port = Field(default=8501, description="port of the chat")
    viewer_port: Port = Field(default=3000, description="port of the viewer")
    viewer_public_key: str = "pk-lf-local"
    viewer_secret_key: SecretStr = SecretStr("sk-lf-local")
    data_dir: Path = Field(default=Path(".data"), description="folder of all that the demo keeps")
    auth_secret: SecretStr | None = None
    demo_once: bool = Field(default=False, description="true ends the demo after one turn")
    collector: bool = Field(default=False, description="true sends spans through the collector")
    collector_port: Port = Field(default=4318, description="port of the collector")
    collector_health_port: Port = Field(default=13133, description="port of the collector's health check")


@dataclass(frozen=True)
class Part:
    """One of the demo's processes: how it starts, where it listens, how it says that it is well."""

    name: str
    arguments: Sequence[str]
    variable: str
    port: int
    health: str
    program: str = sys.executable

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{LOOPBACK}:{self.port}"


@dataclass(frozen=True)
class Turn:
    """What one turn came to."""

    run: RunEvent
    answer: str


def main() -> int:
    """Run the demo; the exit status is 0 only if all that it shows is true."""
    about = "Start the viewer, the service and the chat on this machine, send one turn and show its trace."
    telling = ("port", "ui_port", "viewer_port", "data_dir", "demo_once", "collector")
    take_no_arguments("app.demo", about, Settings, telling)
    # SIGTERM leaves by the same door as Ctrl-C: every part is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load_dotenv(".env")
    try:
        return run(Settings())
    except KeyboardInterrupt:
        return 0
    except (DemoError, SettingsError, AgentError) as error:
        print(error, file=sys.stderr)
    except ValidationError as error:
        print(sentence(error, Settings), file=sys.stderr)
    return 1


def run(settings: Settings) -> int:
    """Start the parts, send the turn, show what came of it, and stay unless told otherwise."""
    os.environ |= {"HOST": LOOPBACK, "AGENT_URL": service(settings).url, **_files(settings.data_dir)}
    tracing = load_settings()
    local = tracing.enabled and tracing.exporter == "otlp" and tracing.endpoint is None
    between = [collector(settings)] if settings.collector else []
    parts = [*([viewer(settings)] if local else []), *between, service(settings), chat(settings)]
    check_ports(parts)
    if local:
        _point_at_viewer(parts[0], settings)
    for part in between:
        _point_at_collector(part, settings)
    with running(parts, settings.data_dir / "logs"):
        shown = show_turn(settings, parts[0] if local else None)
        if not settings.demo_once:
            print("\nCtrl-C stops everything.", flush=True)
            signal.pause()
    return 0 if shown else 1


def viewer(settings: Settings) -> Part:
    """The local backend."""
    return Part("viewer", ["-m", "telemetry.viewer"], "VIEWER_PORT", settings.viewer_port, "/api/public/health")


def collector(settings: Settings) -> Part:
    """What the spans pass through on their way to the backend."""
    configs = [f"--config=otel-collector/config/{name}.yaml" for name in ("shared", "stateless")]
    health = f"http://{LOOPBACK}:{settings.collector_health_port}/"
    return Part("collector", configs, "COLLECTOR_PORT", settings.collector_port, health, str(COLLECTOR))


def service(settings: Settings) -> Part:
    """The agents' API."""
    return Part("service", ["-m", "app"], "PORT", settings.port, "/health")


def chat(settings: Settings) -> Part:
    """The page that people talk to."""
    flags = ["--server.headless=true", "--browser.gatherUsageStats=false"]
    bind = [f"--server.address={LOOPBACK}", f"--server.port={settings.ui_port}"]
    return Part(
        "chat",
        ["-m", "streamlit", "run", "ui/serve.py", *flags, *bind],
        "UI_PORT",
        settings.ui_port,
        "/_stcore/health",
    )


def check_ports(parts: Sequence[Part]) -> None:
    """Refuse ports that are taken, by others or by one another."""
    with ExitStack() as held:
        for part in parts:
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, part.port))
                probe.listen()
            except OSError as error:
                raise DemoError(
                    f"Port {part.port} is not free for the {part.name}: set {part.variable} to another one."
                ) from error


@contextmanager
def running(parts: Sequence[Part], logs: Path) -> Iterator[None]:
    """Every part is up and well inside, and gone afterwards, the first one last."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        started = [(part, stack.enter_context(_started(part, logs / f"{part.name}.log"))) for part in parts]
        for part, process in started:
            _wait_until_well(part, process, logs / f"{part.name}.log")
        yield


def show_turn(settings: Settings, backend: Part | None) -> bool:
    """Send one turn and print what came of it; false if its trace is not whole in the viewer."""
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else None
    telemetry.configure("demo")
    with telemetry.untraced():
        agent = AgentClient(service(settings).url, auth_secret=secret).info().default_agent
    turn = talk(AgentClient(service(settings).url, agent, auth_secret=secret), QUESTION)
    print(f"{QUESTION}\n{turn.answer}\n", flush=True)
    telemetry.shutdown()
    whole = _show_trace(backend, turn.run)
    print(f"chat    {chat(settings).url}/?thread_id={turn.run.thread_id}")
    return whole


def talk(client: AgentClient, question: str) -> Turn:
    """Send one message on a new thread, as the chat page does, and return what came of it."""
    thread_id = f"demo-{uuid4().hex[:8]}"
    with telemetry.scope(session_id=thread_id, agent="chatbot"), telemetry.span("chat turn") as span:
        span.set_attribute("input.value", question)
        turn = _read(client.stream(question, thread_id=thread_id))
        span.set_attribute("output.value", turn.answer)
        return turn


def _read(events: Iterator[StreamEvent]) -> Turn:
    run, answer = None, ""
    for event in events:
        match event:
            case RunEvent():
                run = event
            case MessageEvent() if event.content.type == "ai":
                answer = event.content.content or answer
            case ErrorEvent():
                raise DemoError(f"The turn failed: {event.message} (trace {event.trace_id})")
            case EndEvent(status="completed") if run:
                return Turn(run, answer)
    raise DemoError("The turn did not complete.")


def _show_trace(backend: Part | None, run: RunEvent) -> bool:
    if run.trace_id is None:
        print("Tracing is off: this turn has no trace.\n")
    elif run.sampled is False:
        print("This turn was not sampled: it has no trace.\n")
    elif backend:
        return _show_tree(backend, run.trace_id)
    else:
        print(f"trace   {run.trace_url or run.trace_id}")
    return True


def _show_tree(backend: Part, trace_id: str) -> bool:
    url = f"{backend.url}/project/local/traces/{trace_id}"
    tree = ""
    with telemetry.untraced():
        for _ in _attempts(ARRIVAL_SECONDS):
            tree = _text(f"{url}.txt")
            if is_whole(tree):
                break
    print(tree or "The viewer has not got the trace.")
    print(f"\ntrace   {url}\nviewer  {backend.url}")
    return is_whole(tree)


def _text(url: str) -> str:
    answer = httpx.get(url, timeout=5, trust_env=False)
    return answer.text.rstrip() if answer.is_success else ""


def is_whole(tree: str) -> bool:
    """Whether the tree has the turn at its root, the service's part below it, and nothing beside it."""
    lines = tree.splitlines()
    roots = [line for line in lines if not line.startswith(" ")]
    return roots == ["chat turn"] and any(line.endswith(" SERVER") for line in lines)


def _files(folder: Path) -> dict[str, str]:
    """Every part keeps its files in the demo's folder, unless told where."""
    places = {"VIEWER_DB": folder / "viewer.db", "TELEMETRY_SPOOL_DIR": folder / "spool"}
    return {name: os.environ.get(name) or str(place) for name, place in places.items()}


def _point_at_viewer(backend: Part, settings: Settings) -> None:
    os.environ["LANGFUSE_HOST"] = backend.url
    os.environ["LANGFUSE_PUBLIC_KEY"] = settings.viewer_public_key
    os.environ["LANGFUSE_SECRET_KEY"] = settings.viewer_secret_key.get_secret_value()


def _point_at_collector(part: Part, settings: Settings) -> None:
    if not COLLECTOR.exists():
        raise DemoError("The collector is not built: make collector, or leave COLLECTOR unset.")
    tracing = load_settings()
    if tracing.endpoint:
        os.environ["COLLECTOR_ENDPOINT"] = tracing.endpoint.removesuffix("/v1/traces")
        os.environ["COLLECTOR_AUTHORIZATION"] = tracing.headers.get("authorization", "")
    # An empty variable of .env is an empty one to the collector.
    os.environ["COLLECTOR_PORT"] = str(settings.collector_port)
    os.environ["COLLECTOR_HEALTH_PORT"] = str(settings.collector_health_port)
    os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{part.url}/v1/traces"


@contextmanager
def _started(part: Part, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own modules, no shell
            [part.program, *part.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        process.wait()


def _wait_until_well(part: Part, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in _attempts(STARTUP_SECONDS):
        if process.poll() is not None:
            raise DemoError(f"The {part.name} ended with status {process.returncode}:\n{_tail(log)}")
        if _is_well(part):
            return
    raise DemoError(f"The {part.name} does not answer at {urljoin(part.url, part.health)}:\n{_tail(log)}")


def _is_well(part: Part) -> bool:
    try:
        return httpx.get(urljoin(part.url, part.health), timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _attempts(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


if __name__ == "__main__":
    sys.exit(main())
