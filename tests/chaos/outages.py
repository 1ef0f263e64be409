"""Users and runs of the service while its database is away, and what client, history and trace say of each."""

import json
import os
import random
import sqlite3
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from telemetry.testing.receiver import Receiver
from tests.background import Api, api
from tests.chaos.proxy import proxy
from tests.postgres import Postgres, postgres_server
from tests.processes import free_port, until

MESSAGES = ("Tell me a story of 40 words", "What is 12*34?", "/fail-after 5 tell me a story")
PACE = {"DEMO_PACE_S": "0.05", "STEP_PACE_S": "1", "HEARTBEAT_S": "5", "RUN_CONCURRENCY": "20"}
DISK_BYTES = 64_000_000
# Why a run fails whose process was killed under it again and again.
TOO_OFTEN = "was begun 6 times"


@dataclass
class Outage:
    """A database that can be taken away, and the settings of a service that uses it."""

    env: dict[str, str]
    begin: Callable[[], None]
    end: Callable[[], None]


@contextmanager
def outage(fault: str, folder: Path) -> Iterator[Outage]:
    """The database that this fault is about."""
    if fault in ("locked", "full"):
        yield from (_locked if fault == "locked" else _full)(folder / "0")
        return
    with postgres_server() as server, outage_of(server, fault) as away:
        yield away


@contextmanager
def outage_of(server: Postgres, fault: str) -> Iterator[Outage]:
    """The server, which can be stopped, hung or cut off."""
    if fault == "cut":
        with proxy(server.port) as passing:
            url = server.url.replace(str(server.port), str(passing.port))
            yield Outage({"DATABASE_URL": url}, passing.cut, passing.mend)
        return
    begin, end = {"hung": (server.hang, server.wake), "stopped": (server.stop, server.start)}[fault]
    yield Outage({"DATABASE_URL": server.url}, begin, end)


def _locked(folder: Path) -> Iterator[Outage]:
    with ExitStack() as stack:
        files = [folder / name for name in ("service.db", "checkpoints.db")]
        held: list[sqlite3.Connection] = []

        def begin() -> None:
            for file in files:
                held.append(stack.enter_context(closing(sqlite3.connect(file, 30, isolation_level=None))))
                held[-1].execute("begin exclusive")

        def end() -> None:
            for connection in held:
                connection.execute("rollback")

        yield Outage({}, begin, end)


def _full(folder: Path) -> Iterator[Outage]:
    """A disk of its own for all files of the service, its spool among them."""
    folder.mkdir()
    if os.getuid() or subprocess.call(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder]):
        pytest.skip("only root can mount a small disk")
    filler = folder / "filler"

    def begin() -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    try:
        yield Outage({}, begin, filler.unlink)
    finally:
        subprocess.check_call(["umount", "--lazy", folder])


@dataclass
class Users:
    """Users who ask one thing after the other, each on threads of their own, and note what they are told."""

    urls: Sequence[str]
    # What they were told of the end of each run, and the runs whose streams broke before that.
    ended: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    unstored: int = 0
    threads: dict[str, str] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)
    slowest_refusal_s: float = 0.0
    _stopped: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def start(self, number: int) -> None:
        """So many users, from now on."""
        for user in range(number):
            self._running.append(threading.Thread(target=self._ask, args=(user,)))
            self._running[-1].start()

    def stop(self) -> None:
        """Let each come to the end of its turn."""
        self._stopped.set()
        for user in self._running:
            user.join(120)
            assert not user.is_alive(), "a stream without an end"

    def _ask(self, user: int) -> None:
        chance, numbers = random.Random(user), count()
        with httpx.Client(timeout=60) as http:
            while not self._stopped.is_set():
                message = f"{chance.choice(MESSAGES)} (user {user}, message {next(numbers)})"
                self._turn(http, self.urls[user % len(self.urls)], f"t-{user}-{chance.randrange(3)}", message)

    def _turn(self, http: httpx.Client, url: str, thread_id: str, message: str) -> None:
        asked, run_id, status = time.monotonic(), "", ""
        body = {"message": message, "thread_id": thread_id}
        try:
            with http.stream("POST", f"{url}/chatbot/stream", json=body) as answer:
                if answer.status_code != 200:
                    self.refused[answer.status_code] += 1
                    self.slowest_refusal_s = max(self.slowest_refusal_s, time.monotonic() - asked)
                    assert answer.status_code != 503 or int(answer.headers["retry-after"])
                    time.sleep(0.5)
                    return
                for line in answer.iter_lines():
                    event = json.loads(line[6:]) if line.startswith("data: {") else {}
                    if event.get("type") == "run":
                        run_id, self.threads[event["run_id"]] = event["run_id"], thread_id
                    if event.get("type") == "end":
                        status = event["status"]
                        self.unstored += not event["stored"]
        except httpx.ConnectError:
            self.refused[0] += 1  # it is being started again
            time.sleep(0.1)
            return
        except httpx.TransportError:
            pass
        if status:
            self.ended[run_id] = status
        else:
            self.broken.append(run_id)


def submit(services: Sequence[Api], number: int) -> list[str]:
    """So many background runs, of steps that take a second each."""
    return [services[n % len(services)].submit(f"what is {n}+1 and {n}+2 and {n}+3")["run_id"] for n in range(number)]


@dataclass
class Found:
    """What client, history, thread and trace say of the turns, once all of it has arrived."""

    # Of turns of which not all say the same: run, client, history, trace.
    differing: list[tuple[str, ...]]
    # Threads whose state differs from that of their last turn: thread, state, history.
    threads: list[tuple[str, ...]]
    # Questions that are in a thread twice, and turns with two spans.
    doubled: list[str]
    stuck: list[str]


def compare(users: Users, url: str, receiver: Receiver) -> Found:
    """Compare what the users were told with what their histories, threads and traces say."""
    history: dict[str, str] = {}
    threads: list[tuple[str, ...]] = []
    questions: Counter[str] = Counter()
    for thread_id in sorted(set(users.threads.values())):
        answer = httpx.post(f"{url}/history", json={"thread_id": thread_id}, timeout=60).json()
        history |= {turn["run_id"]: turn["status"] for turn in answer["turns"]}
        questions.update(message["content"] for message in answer["messages"] if message["type"] == "human")
        state = httpx.get(f"{url}/threads/{thread_id}", timeout=60).json()["status"]
        if answer["turns"] and state != answer["turns"][-1]["status"]:
            threads.append((thread_id, state, answer["turns"][-1]["status"]))
    traced = _traced(users, receiver)
    differing: list[tuple[str, ...]] = []
    for run_id in users.threads:
        told, stored, spans = users.ended.get(run_id), history.get(run_id, "-"), traced[run_id].values()
        if set(spans) != {stored} or told not in (stored, None):
            differing.append((run_id, told or "-", stored, " ".join(spans)))
    return Found(
        differing,
        threads,
        [question for question, times in questions.items() if times > 1]
        # A background run has a span for each attempt.
        + [run_id for run_id in users.threads if len(traced[run_id]) > 1],
        [run_id for run_id, status in history.items() if status == "running"],
    )


def _traced(users: Users, receiver: Receiver) -> dict[str, dict[str, str]]:
    """The spans of each turn with their status, once there is one of each."""
    traced: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def arrived() -> bool:
        for span in receiver.spans:
            if span.name == "turn" and "turn.status" in span.attributes:
                run_id = str(span.attributes["langfuse.trace.metadata.run"])
                traced[run_id][span.span_id] = str(span.attributes["turn.status"])
        return users.threads.keys() <= traced.keys()

    with suppress(AssertionError):
        until(arrived, 60)
    return traced


def run_fault(
    fault: str, seconds: float, replicas: int, folder: Path, *, users: int = 30, runs: int = 20
) -> tuple[dict[str, Any], Found, list[dict[str, Any]], str]:
    """Take the database away for so long, under users and runs.

    Returns the figures, what client, history and trace say, the runs, and the log of the services.
    """
    with Receiver() as receiver, outage(fault, folder) as away, ExitStack() as stack:
        env = {**PACE, **away.env}
        services = [stack.enter_context(api(folder / str(n), receiver, env)) for n in range(replicas)]
        asking = Users([one.url for one in services])
        submitted = submit(services, runs)
        asking.start(users)
        time.sleep(3)
        away.begin()
        time.sleep(seconds)
        away.end()
        returned = time.monotonic()
        until(lambda: all(httpx.get(f"{one.url}/health/ready", timeout=60).is_success for one in services), 60)
        ready_s = time.monotonic() - returned
        time.sleep(3)
        asking.stop()
        done = [services[0].over(run_id, 120) for run_id in submitted]
        # What was not stored when it was told.
        until(lambda: not has_running(asking, services[0].url), 60)
        found = compare(asking, services[0].url, receiver)
        log = "".join(one.process.log for one in services)
    completed = sum(run["status"] == "completed" for run in done)
    figures = {
        "fault": fault,
        "length": seconds,
        "replicas": replicas,
        "turns": len(asking.ended),
        "runs": len(done),
        "lost": len(asking.broken) + len(found.differing) + len(found.threads) + len(done) - completed,
        "doubled": len(found.doubled) + sum(len(run["trace_ids"]) - 1 for run in done),
        "stuck": len(found.stuck),
        "seconds to recover": round(ready_s, 1),
        "told as not stored": asking.unstored,
        "refused": dict(asking.refused),
        "slowest refusal": round(asking.slowest_refusal_s, 1),
        "log lines": len(log.splitlines()),
    }
    return figures, found, done, log


def run_kills(kills: int, folder: Path, *, users: int = 30) -> tuple[dict[str, Any], Found, list[dict[str, Any]], str]:
    """Kill a service with SQLite so often under users and runs, one run more in each life; return as `run_fault`."""
    chance, port, log = random.Random(kills), free_port(), ""
    env = {**PACE, "PORT": str(port)}
    asking, submitted, starts = Users([f"http://127.0.0.1:{port}"]), list[str](), list[float]()
    with Receiver() as receiver:
        for life in range(kills):
            began = time.monotonic()
            with api(folder, receiver, env) as one:
                starts.append(time.monotonic() - began)
                if not life:
                    asking.start(users)
                submitted += submit([one], 1)
                time.sleep(chance.uniform(0.5, 3))
                one.kill()
                log += one.process.log
        with api(folder, receiver, env) as last:
            asking.stop()
            done = [last.over(run_id, 120) for run_id in submitted]
            found = compare(asking, last.url, receiver)
            log += last.process.log
    failed = [run for run in done if run["status"] != "completed" and TOO_OFTEN not in (run["error"] or "")]
    figures = {
        "fault": f"killed {kills} times",
        "length": round(sum(starts)),
        "replicas": 1,
        "turns": len(asking.threads),
        "runs": len(done),
        "lost": len(found.differing) + len(found.threads) + len(failed),
        "doubled": len(found.doubled),
        "stuck": len(found.stuck),
        "seconds to recover": round(max(starts), 1),
        "streams cut by a kill": len(asking.broken),
        "runs killed too often": sum(run["status"] == "failed" for run in done) - len(failed),
        "log lines": len(log.splitlines()),
    }
    return figures, found, done, log


def has_running(users: Users, url: str) -> bool:
    """Whether the history of a thread has a turn that has not ended."""
    return any(
        turn["status"] == "running"
        for thread_id in sorted(set(users.threads.values()))
        for turn in httpx.post(f"{url}/history", json={"thread_id": thread_id}, timeout=60).json()["turns"]
    )
