"""Processes of the service for tests that kill them, and what is to be asked of their runs."""

import signal
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse

from telemetry.testing.receiver import Receiver
from tests.chaos.run_service import CALLED, HELD
from tests.processes import Process, free_port, start, until

FINAL = ("waiting", "completed", "failed", "cancelled")


class Api:
    """One process of the service."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url

    def submit(self, message: str, agent: str = "steps", user: str = "ada") -> dict[str, Any]:
        """A run that was accepted, if the database was in use elsewhere at first."""

        def ask() -> httpx.Response | None:
            answer = httpx.post(f"{self.url}/{agent}/runs", json={"message": message, "user_id": user}, timeout=30)
            return None if answer.status_code == 503 and "retry-after" in answer.headers else answer

        answer = until(ask)
        assert answer
        assert answer.status_code == 202, answer.text
        return answer.json()

    def run(self, run_id: str) -> dict[str, Any]:
        """Where a run stands."""
        answer = httpx.get(f"{self.url}/runs/{run_id}", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def over(self, run_id: str, seconds: float = 60) -> dict[str, Any]:
        """The run, once it has its final status."""
        found: dict[str, Any] = {}

        def look() -> bool:
            found.update(self.run(run_id))
            return found["status"] in FINAL

        until(look, seconds, lambda: f"{found}\n{self.process.log[-3000:]}")
        return found

    def events(self, run_id: str, after: int = 0) -> list[tuple[int, str]]:
        """The events of a run, to its end, with their numbers."""
        url, headers = f"{self.url}/runs/{run_id}/events", {"Last-Event-ID": str(after)}
        with httpx.Client(timeout=60) as http, connect_sse(http, "GET", url, headers=headers) as source:
            return [(int(event.id), event.data) for event in source.iter_sse() if event.data not in ("", "[DONE]")]

    def kill(self) -> None:
        """SIGKILL, and gone."""
        self.process.popen.send_signal(signal.SIGKILL)
        self.process.popen.wait(10)

    def pause(self) -> None:
        """Stand still until woken."""
        self.process.popen.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Go on."""
        self.process.popen.send_signal(signal.SIGCONT)


@contextmanager
def api(folder: Path, receiver: Receiver, env: Mapping[str, str] | None = None) -> Iterator[Api]:
    """A process of the service on this folder, its spans on their way to the receiver."""
    port = (env or {}).get("PORT") or free_port()
    settings = {
        "PORT": str(port),
        "DATA_DIR": str(folder),
        "DEMO_PACE_S": "0",
        "HEARTBEAT_S": "0.3",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "TELEMETRY_SPOOL_DIR": str(folder / "spool"),
        **(env or {}),
    }
    url = f"http://127.0.0.1:{port}"
    with start([sys.executable, "-m", "tests.chaos.run_service"], settings, f"{url}/health", 180) as process:
        yield Api(process, url)


@contextmanager
def held(folder: Path, expression: str) -> Iterator[None]:
    """The tool that was asked for this is at work on it for the length of the block, in whichever process."""
    file = folder / HELD
    file.write_text(expression)
    try:
        yield
    finally:
        file.unlink()


def called(folder: Path) -> list[str]:
    """Each time that a tool was really called: the call's id and its expression."""
    file = folder / CALLED
    return file.read_text().splitlines() if file.exists() else []


def answered(folder: Path) -> set[str]:
    """The calls whose answers are kept, in SQLite."""
    with sqlite3.connect(folder / "service.db") as connection:
        rows = connection.execute("select call_id from background_answers where body is not null")
        return {row[0].rpartition("/")[2] for row in rows}
