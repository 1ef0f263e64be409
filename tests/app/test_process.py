"""The process of the service under faults of its own: errors nobody foresaw, no descriptors, a terminal that closes."""

import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from app.client import AgentClient
from app.schema import EndEvent, TokenEvent
from tests.processes import Process, free_port, start, until


@contextmanager
def served(folder: Path, **env: str) -> Iterator[tuple[Process, str]]:
    """The service as people start it, without tracing."""
    url = f"http://127.0.0.1:{free_port()}"
    settings = {"PORT": url.rsplit(":", 1)[1], "DATA_DIR": str(folder), "LANGFUSE_TRACING": "false", **env}
    with start([sys.executable, "-m", "app"], settings, f"{url}/health", 180) as process:
        yield process, url


def test_an_unforeseen_error_is_logged_once(tmp_path: Path) -> None:
    """Each of many requests on one connection is answered, and the log has one traceback; so a hang-up ends it."""
    with served(tmp_path, DEMO_PACE_S="0.05") as (process, url), httpx.Client(base_url=url, timeout=60) as http:
        events = AgentClient(url).stream("Tell me a story of 4000 words", thread_id="t-1")
        until(lambda: isinstance(next(events), TokenEvent))
        with closing(sqlite3.connect(tmp_path / "service.db")) as other:
            other.execute("alter table files rename to others")
        answers = [http.get("/files/f-1") for _ in range(20)]

        assert Counter(answer.status_code for answer in answers) == {500: 20}
        assert not [answer for answer in answers if answer.headers.get("connection") == "close"]
        assert process.log.count("Traceback (most recent call last)") <= 2  # with its cause
        assert process.log.count("a request failed") == 1

        process.popen.send_signal(signal.SIGHUP)
        *_, end = events
        assert isinstance(end, EndEvent)
        assert end.status == "cancelled"
        assert process.popen.wait(60) == -signal.SIGHUP


def test_no_descriptors_are_left(tmp_path: Path) -> None:
    """More streams than the process can open are refused, without a flood in the log; later ones are served."""
    url = f"http://127.0.0.1:{free_port()}"
    env = {"PORT": url.rsplit(":", 1)[1], "DATA_DIR": str(tmp_path), "DEMO_PACE_S": "0.05", "LANGFUSE_TRACING": "false"}
    with start([sys.executable, "-m", "tests.limited_service", "64"], env, f"{url}/health", 180) as process:
        with ThreadPoolExecutor(60) as users:
            told = Counter(users.map(lambda number: _ask(url, number), range(60)))
        assert told["[DONE]"]
        until(lambda: _ask(url, 60) == "[DONE]")
        assert process.stop() == -signal.SIGTERM
        assert len(process.log.splitlines()) < 100


def _ask(url: str, number: int) -> str:
    body = {"message": "Tell me a story of 30 words", "thread_id": f"t-{number}"}
    try:
        with httpx.stream("POST", f"{url}/chatbot/stream", json=body, timeout=60) as answer:
            lines = list(answer.iter_lines())
            return "[DONE]" if "data: [DONE]" in lines else str(answer.status_code)
    except httpx.TransportError as error:
        return type(error).__name__
