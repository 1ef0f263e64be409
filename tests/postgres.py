"""A real Postgres server of the tests' own, on loopback."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.processes import free_port, until

INSTALL = "Postgres is not installed here: apt-get install postgresql"


class Postgres:
    """A server of the tests' own, which can be stopped, hung and cut off."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._folder, self._user = _programs(), folder, _unprivileged(folder)
        self.port = free_port()
        self.url = f"postgresql://tests@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "-D", folder / "data", "-A", "trust", "-U", "tests", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = f"-k {self._folder} -h 127.0.0.1 -p {self.port} -c fsync=off"
        self._popen = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder / "data", *settings.split()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd=self._folder,
        )
        until(lambda: _answers(self.url))

    def stop(self) -> None:
        """End it, and whoever is connected."""
        self._popen.send_signal(signal.SIGINT)  # SIGTERM would wait for whoever is still connected
        self._popen.wait(60)

    def hang(self) -> None:
        """Let it take connections and answer nothing."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it answer again."""
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def processes(self) -> list[int]:
        """The ids of its processes, the server first."""
        children = Path(f"/proc/{self._popen.pid}/task/{self._popen.pid}/children").read_text()
        return [self._popen.pid, *map(int, children.split())]

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self._programs / program, *arguments], check=True, capture_output=True, user=self._user, cwd=self._folder
        )


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """An empty server; skips the test where none is installed, and fails it in CI."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.wake()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty server; skips the test where none is installed, and fails it in CI."""
    with postgres_server() as server:
        yield server.url


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(INSTALL)
    return found[-1].parent


def _unprivileged(folder: Path) -> str | None:
    # Postgres refuses to run as root.
    if os.geteuid():
        return None
    shutil.chown(folder, "postgres")
    return "postgres"


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
