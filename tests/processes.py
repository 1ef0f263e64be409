"""Real processes and real sockets for tests, ended by their ids, with bounded waits."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from dotenv import dotenv_values

from tests import fork_server
from tests.fork_server import ForkedProcess

ROOT = Path(__file__).parent.parent
# A developer's own .env stays outside: a variable that is there already, if empty, is not read from it.
UNSET = dict.fromkeys(dotenv_values(ROOT / ".env.example"), "")
# Modules whose imports the fork server has done.
FORKED = ("app", "telemetry.viewer", "tests.chaos.run_service", "tests.flawed_agents", "tests.limited_service")
Found = TypeVar("Found")


class DiedError(AssertionError):
    """A process ended before it answered."""


class Process:
    """A running program and what it has printed."""

    def __init__(self, popen: subprocess.Popen[bytes] | ForkedProcess, log: Path) -> None:
        self.popen = popen
        self._log = log

    @property
    def log(self) -> str:
        """Everything printed so far, both streams."""
        return self._log.read_text(errors="replace")

    def stop(self, seconds: float = 60) -> int:
        """The exit status, after SIGTERM, or SIGKILL once the time is over."""
        self.popen.terminate()
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait(seconds)


@contextlib.contextmanager
def start(argv: Sequence[str], env: Mapping[str, str], url: str, seconds: float = 60) -> Iterator[Process]:
    """A process started in the project's root that answers at `url`; ended on leaving.

    `env` comes on top of a bare environment: the caller's own settings and keys stay outside.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        process = Process(_start(argv, bare() | dict(env), log), log)
        try:
            until(lambda: _answers(process, url), seconds, lambda: f"{url} stayed silent:\n{process.log}")
            yield process
        finally:
            process.stop()
            sys.stdout.write(process.log)  # pytest shows it with a failure


def run(module: str, *argv: str, env: Mapping[str, str], cwd: Path = ROOT, seconds: float = 60) -> tuple[int, str]:
    """The exit status of `python -m` with these variables alone, and all that it printed."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        process = fork_server.run_module(module, argv, env, cwd, log)
        try:
            return process.wait(seconds), log.read_text()
        finally:
            process.kill()


def run_code(
    code: str, *argv: str, env: Mapping[str, str], cwd: Path = ROOT, seconds: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run a program as `python -c` does, with these variables on top of a bare environment, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        log, errors = Path(folder, "stdout"), Path(folder, "stderr")
        process = fork_server.run_code(code, argv, bare() | dict(env), cwd, log, errors)
        try:
            status = process.wait(seconds)
            return subprocess.CompletedProcess(process.args, status, log.read_text(), errors.read_text())
        finally:
            process.kill()


@contextlib.contextmanager
def serve(app: Any, **options: Any) -> Iterator[str]:
    """The address of an ASGI application served over a real socket by a thread of this process."""
    port = free_port()
    # As in our images; uvicorn takes others where they are installed.
    options = {"loop": "asyncio", "http": "h11", **options}
    config = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that nobody is given by chance for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as caller:
        # The end of a connection is what keeps it: only who asks for it by number has it meanwhile.
        server.accept()[0].close()
        caller.recv(1)
        return server.getsockname()[1]


def until(
    look: Callable[[], Found], seconds: float = 60, complaint: Callable[[], str] = lambda: "waited in vain"
) -> Found:
    """The first true answer of `look`; fails with the complaint when the time is over."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(complaint())
        time.sleep(0.02)
    return found


def _start(argv: Sequence[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes] | ForkedProcess:
    if argv[:2] == [sys.executable, "-m"] and argv[2] in FORKED and fork_server.can_run(env):
        return fork_server.run_module(argv[2], argv[3:], env, ROOT, log)
    with log.open("wb") as printed:
        return subprocess.Popen(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed)


def bare() -> dict[str, str]:
    return UNSET | {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def _answers(process: Process, url: str) -> bool:
    if process.popen.poll() is not None:
        raise DiedError(f"{process.popen.args} ended with {process.popen.returncode}:\n{process.log}")
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
