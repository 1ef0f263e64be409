"""A thousand scores while the backend comes and goes and the service is killed again and again."""

import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.client import AgentClient
from tests.figures import Figures
from tests.langfuse_server import Langfuse, langfuse_server
from tests.processes import free_port, start, until

pytestmark = pytest.mark.chaos

SCORES, KILLS, RUNS, VOTERS = 1000, 5, 10, 4


class Service:
    """A service at one address, in one process after the other."""

    def __init__(self, env: dict[str, str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.kills = 0
        self._env = {**env, "PORT": str(port)}
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._pid = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """The service, started again whenever it was killed."""
        self._thread.start()
        try:
            assert self._ready.wait(60)
            yield
        finally:
            self._over.set()
            self.kill()
            self._thread.join(60)

    def kill(self) -> None:
        """SIGKILL, in whatever it is doing."""
        if self._ready.wait(60):
            os.kill(self._pid, signal.SIGKILL)

    def _live(self) -> None:
        while not self._over.is_set():
            with start([sys.executable, "-m", "app"], self._env, f"{self.url}/health") as process:
                self._pid = process.popen.pid
                self._ready.set()
                process.popen.wait()
                self._ready.clear()
                self.kills += 1


@contextmanager
def flapping(server: Langfuse) -> Iterator[None]:
    """The backend is down, forgetful or well, for some tenths of a second each."""
    over = threading.Event()

    def flap() -> None:
        for status, forgets in itertools.cycle([(503, False), (None, False), (500, True), (None, False), (429, False)]):
            server.status, server.forgets = status, forgets
            if over.wait(random.uniform(0.2, 0.9)):
                break
        server.status, server.forgets = None, False

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_thousand_scores(tmp_path: Path, figures: Figures) -> None:
    """Of a thousand scores each is there once, with its last value, whatever died meanwhile."""
    with langfuse_server(tmp_path) as server:
        env = {
            **server.env,
            "DATA_DIR": str(tmp_path),
            "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool"),
            "DEMO_PACE_S": "0",
        }
        service = Service(env)
        with service.running():
            client = AgentClient(service.url, timeout=60)
            runs = [client.invoke("Hello") for _ in range(RUNS)]
            wanted: dict[tuple[str, str], float] = {}
            with flapping(server):
                began = time.monotonic()
                _vote(service, [(run.run_id or "", run.trace_id or "") for run in runs], wanted)
                figures["seconds of voting"] = round(time.monotonic() - began)
            until(lambda: _waiting(service.url) == 0, 120)
        found = [score for run in runs for score in server.scores(run.trace_id or "")]

    assert service.kills >= KILLS
    assert len(found) == len({score["id"] for score in found}) == SCORES
    assert {(score["subject"]["id"], score["name"]): score["value"] for score in found} == wanted
    posts = [each for each in server.asked if isinstance(each, list)]
    figures.update({"scores": len(found), "posts to the backend": len(posts), "kills": service.kills})


def _vote(service: Service, runs: list[tuple[str, str]], wanted: dict[tuple[str, str], float]) -> None:
    done = itertools.count(1)

    def votes(voter: int) -> None:
        with httpx.Client(base_url=service.url, timeout=30) as http:
            for number in range(voter, SCORES, VOTERS):
                run_id, trace_id = runs[number % RUNS]
                # Every third voter changes their mind, some of them twice.
                for value in range(1 + (number % 3 == 0) + (number % 9 == 0)):
                    _insist(http, {"run_id": run_id, "key": f"k-{number}", "score": value})
                    wanted[trace_id, f"k-{number}"] = value
                if next(done) % (SCORES // (KILLS + 1)) == 0 and service.kills < KILLS:
                    service.kill()

    with ThreadPoolExecutor(VOTERS) as pool:
        list(pool.map(votes, range(VOTERS)))


def _insist(http: httpx.Client, feedback: dict[str, object]) -> None:
    def accepted() -> bool:
        try:
            answer = http.post("/feedback", json=feedback)
        except httpx.TransportError:
            return False
        return answer.is_success and answer.json()["places"]["langfuse"] in ("sent", "queued")

    until(accepted, 120)


def _waiting(url: str) -> int:
    try:
        return httpx.get(f"{url}/health/telemetry").json()["scores"]["langfuse"]["waiting"]
    except (httpx.TransportError, KeyError):
        return -1
