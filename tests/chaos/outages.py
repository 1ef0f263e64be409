"""Users and runs of the service while its database is away, and what client, history and trace say of each."""

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from telemetry.testing.receiver import Receiver
from tests.background import Api, api
from tests.chaos.proxy import proxy
from tests.postgres import postgres_server
from tests.processes import until

MESSAGES = ("Tell me a story of 40 words", "What is 12*34?", "/fail-after 5 tell me a story")
PACE = {"DEMO_PACE_S": "0.05", "STEP_PACE_S": "1", "HEARTBEAT_S": "5", "RUN_CONCURRENCY": "20"}


@dataclass
class Outage:
    """A database that can be taken away, and the settings of a service that uses it."""

    env: dict[str, str]
    begin: Callable[[], None]
    end: Callable[[], None]


@contextmanager
def outage(fault: str, folder: Path) -> Iterator[Outage]:
    """The database that this fault is about."""
    if fault == "locked":
        yield from _locked(folder)
        return
    with postgres_server() as server:
        if fault == "cut":
            with proxy(server.port) as passing:
                url = server.url.replace(str(server.port), str(passing.port))
                yield Outage({"DATABASE_URL": url}, passing.cut, passing.mend)
        elif fault == "hung":
            yield Outage({"DATABASE_URL": server.url}, server.hang, server.wake)
        else:
            yield Outage({"DATABASE_URL": server.url}, server.stop, server.start)


def _locked(folder: Path) -> Iterator[Outage]:
    with ExitStack() as stack:
        files = [folder / "0" / name for name in ("service.db", "checkpoints.db")]
        held: list[sqlite3.Connection] = []

        def begin() -> None:
            for file in files:
                held.append(stack.enter_context(closing(sqlite3.connect(file, 30, isolation_level=None))))
                held[-1].execute("begin exclusive")

        def end() -> None:
            for connection in held:
                connection.execute("rollback")

        yield Outage({}, begin, end)


@dataclass
class Users:
    """Users who ask one thing after the other, each on threads of their own, and note what they are told."""

    services: Sequence[Api]
    ended: dict[str, str] = field(default_factory=dict)
    unstored: int = 0
    threads: dict[str, str] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)
    slowest_refusal_s: float = 0.0
    broken: int = 0
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
        chance = random.Random(user)
        with httpx.Client(timeout=60) as http:
            while not self._stopped.is_set():
                service = self.services[user % len(self.services)]
                message = chance.choice(
                    ["Tell me a story of 40 words", "What is 12*34?", "/fail-after 5 tell me a story"]
                )
                self._turn(http, service.url, f"t-{user}-{chance.randrange(3)}", message)

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
        except httpx.TransportError:
            pass
        if status:
            self.ended[run_id] = status
        else:
            self.broken += 1


def submit(services: Sequence[Api], number: int) -> list[str]:
    """So many background runs, of steps that take a second each."""
    return [services[n % len(services)].submit(f"what is {n}+1 and {n}+2 and {n}+3")["run_id"] for n in range(number)]


@dataclass
class Found:
    """What is left: turns of which client, history and trace say different things, and so on."""

    differing: list[tuple[str, ...]]
    doubled: list[str]
    stuck: list[str]


def compare(users: Users, url: str, receiver: Receiver) -> Found:
    """What the users were told, what their histories say, and what the traces say, once all of it has arrived."""
    history: dict[str, str] = {}
    for thread_id in sorted(set(users.threads.values())):
        answer = httpx.post(f"{url}/history", json={"thread_id": thread_id}, timeout=60).json()
        history |= {turn["run_id"]: turn["status"] for turn in answer["turns"]}
    traced: dict[str, str] = {}

    def arrived() -> bool:
        for span in receiver.spans:
            if span.name == "turn" and "turn.status" in span.attributes:
                traced[str(span.attributes["langfuse.trace.metadata.run"])] = str(span.attributes["turn.status"])
        return users.threads.keys() <= traced.keys()

    with suppress(AssertionError):
        until(arrived, 60)
    differing = [
        (run_id, told, history.get(run_id, "-"), traced.get(run_id, "-"))
        for run_id, told in users.ended.items()
        if not told == history.get(run_id) == traced.get(run_id)
    ]
    doubled = [run_id for run_id in history if run_id not in users.threads]
    return Found(differing, doubled, [run_id for run_id, status in history.items() if status == "running"])


def run_fault(
    fault: str, seconds: float, replicas: int, folder: Path, *, users: int = 30, runs: int = 20
) -> dict[str, Any]:
    """Take the database away for so long, under users and runs, and return what came of it."""
    with Receiver() as receiver, outage(fault, folder) as away, ExitStack() as stack:
        env = {**PACE, **away.env}
        services = [stack.enter_context(api(folder / str(n), receiver, env)) for n in range(replicas)]
        asking = Users(services)
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
        until(lambda: not _has_running(asking, services[0].url), 60)
        found = compare(asking, services[0].url, receiver)
        logs = "".join(one.process.log for one in services)
    return {
        "fault": fault,
        "length": seconds,
        "replicas": replicas,
        "turns": len(asking.ended),
        "told as not stored": asking.unstored,
        "refused": dict(asking.refused),
        "slowest refusal": round(asking.slowest_refusal_s, 1),
        "lost": asking.broken,
        "differing": found.differing,
        "doubled": found.doubled,
        "stuck": found.stuck,
        "runs": Counter(run["status"] for run in done),
        "attempts": Counter(len(run["trace_ids"]) for run in done),
        "log lines": len(logs.splitlines()),
        "tracebacks": logs.count("Traceback"),
        "seconds to ready": round(ready_s, 1),
        "log": logs,
    }


def _has_running(users: Users, url: str) -> bool:
    """Whether the history of a thread has a turn that has not ended."""
    return any(
        turn["status"] == "running"
        for thread_id in sorted(set(users.threads.values()))
        for turn in httpx.post(f"{url}/history", json={"thread_id": thread_id}, timeout=60).json()["turns"]
    )
