"""Start the processes of the demo, wait until they are healthy, and stop them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import httpx

from app.demo.settings import DemoError

LOOPBACK = "127.0.0.1"
STARTUP_SECONDS = 60


@dataclass(frozen=True)
class DemoProcess:
    """One process of the demo: its command, its port with the setting that changes it, its health check."""

    name: str
    arguments: Sequence[str]
    port_setting: str
    port: int
    health_path: str
    program: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{LOOPBACK}:{self.port}"


def check_ports(processes: Sequence[DemoProcess]) -> None:
    """Raise `DemoError` for a port that is in use, or that two processes would use."""
    with ExitStack() as stack:
        for process in processes:
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, process.port))
                probe.listen()
            except OSError as error:
                raise DemoError(
                    f"Port {process.port} is not free for the {process.name}: "
                    f"set {process.port_setting} to another one."
                ) from error


@contextmanager
def run_processes(processes: Sequence[DemoProcess], logs: Path) -> Iterator[None]:
    """Start every process and wait until it is healthy; stop them afterwards, the first one last."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        started = []
        for process in processes:
            log = logs / f"{process.name}.log"
            started.append((process, stack.enter_context(_start(process, log)), log))
        for process, popen, log in started:
            _wait_until_healthy(process, popen, log)
        yield


def attempts(seconds: float) -> Iterator[None]:
    """Yield ten times a second until the time has passed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)


@contextmanager
def _start(process: DemoProcess, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        popen = subprocess.Popen(  # noqa: S603 - our own modules, no shell
            [process.program, *process.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **process.environment},
            start_new_session=True,
        )
    try:
        yield popen
    finally:
        try:
            os.killpg(popen.pid, signal.SIGTERM)
            popen.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
        except ProcessLookupError:
            popen.wait()


def _wait_until_healthy(process: DemoProcess, popen: subprocess.Popen[bytes], log: Path) -> None:
    url = urljoin(process.url, process.health_path)
    for _ in attempts(STARTUP_SECONDS):
        if popen.poll() is not None:
            raise DemoError(f"The {process.name} ended with status {popen.returncode}:\n{_tail(log)}")
        try:
            if httpx.get(url, timeout=2, trust_env=False).is_success:
                return
        except httpx.TransportError:
            continue
    raise DemoError(f"The {process.name} does not answer at {url}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
