"""Users of three replicas behind nginx, which are killed and started again; every stream is rejoined."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from app.client import AgentClient, AgentError
from app.schema import EndEvent, MessageEvent, RunEvent, StreamEvent
from telemetry.testing.receiver import Receiver
from tests.background import Api, api
from tests.chaos.outages import Found, Users, compare, has_running
from tests.nginx import nginx
from tests.postgres import postgres
from tests.processes import free_port, until

ENV = {"DEMO_PACE_S": "0.15", "HEARTBEAT_S": "5"}
REPLICAS = 3


@dataclass
class Told:
    """What one stream has told its reader, over however many connections."""

    thread_id: str
    message: str
    expected: str
    events: list[StreamEvent] = field(default_factory=list)
    error: str = ""

    @property
    def run_id(self) -> str:
        """The run, empty if the stream broke before its first event."""
        first = self.events[0] if self.events else None
        return first.run_id if isinstance(first, RunEvent) else ""

    @property
    def status(self) -> str:
        """How the turn ended, as it was told."""
        last = self.events[-1] if self.events else None
        return last.status if isinstance(last, EndEvent) else ""


@dataclass
class StreamUsers:
    """Users who stream one turn after the other, which continue without them, and rejoin what breaks."""

    url: str
    streams: list[Told] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    longest_silence_s: float = 0.0
    _stopped: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def start(self, number: int) -> None:
        """So many users, from now on."""
        self._running = [threading.Thread(target=self._ask, args=(user,)) for user in range(number)]
        for user in self._running:
            user.start()

    def stop(self) -> None:
        """Let each come to the end of its turn."""
        self._stopped.set()
        for user in self._running:
            user.join(180)
            assert not user.is_alive(), "a stream without an end"

    def _ask(self, user: int) -> None:
        chance, numbers, client = random.Random(user), count(), AgentClient(self.url, timeout=600)
        while not self._stopped.is_set():
            number = next(numbers)
            what = f"(user {user}, message {number})"
            message, expected = (
                (f"What is {user + 100}*{number + 100}? {what}", str((user + 100) * (number + 100)))
                if chance.random() < 0.5
                else (f"Tell me a story of 25 words {what}", "")
            )
            self._stream(client, Told(f"t-{user}-{chance.randrange(3)}", message, expected))
            self._stopped.wait(chance.uniform(0.5, 2))

    def _stream(self, client: AgentClient, told: Told) -> None:
        at = time.monotonic()
        try:
            for event in client.stream(told.message, thread_id=told.thread_id, on_disconnect="continue"):
                told.events.append(event)
                self.longest_silence_s = max(self.longest_silence_s, time.monotonic() - at)
                at = time.monotonic()
        except AgentError as error:
            if not told.events:
                # It may have begun, though nothing was heard of it.
                self.refused[f"{type(error).__name__} {getattr(error, 'status', None) or ''}".strip()] += 1
                return
            told.error = str(error)
        self.streams.append(told)


class Replica:
    """A service that is started again whenever it is killed."""

    def __init__(self, folder: Path, receiver: Receiver, env: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = ""
        self._folder, self._receiver, self._env = folder, receiver, {**env, "PORT": str(self.port)}
        self._alive, self._kill, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def wait(self) -> None:
        """Return when it answers."""
        assert self._alive.wait(180), "a replica did not start"

    def kill(self) -> None:
        """SIGKILL; it starts again at once."""
        self._alive.clear()
        self._kill.set()

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        self._kill.set()
        self._thread.join(180)

    def _live(self) -> None:
        while not self._stopped.is_set():
            with api(self._folder, self._receiver, self._env) as one:
                self._alive.set()
                self._kill.wait()
                self._kill.clear()
                if not self._stopped.is_set():
                    one.kill()
                self._note(one)

    def _note(self, one: Api) -> None:
        self.log += one.process.log


@contextmanager
def replicas(folder: Path, receiver: Receiver) -> Iterator[tuple[str, Sequence[Replica]]]:
    """Three replicas on one Postgres, and the address of the nginx in front of them."""
    with postgres() as database, ExitStack() as stack:
        env = {**ENV, "DATABASE_URL": database}
        started = [Replica(folder / str(number), receiver, env) for number in range(REPLICAS)]
        for replica in started:
            stack.callback(replica.stop)
        for replica in started:
            replica.wait()
        yield stack.enter_context(nginx(folder, [replica.url for replica in started], "")), started


def run_replicas(seconds: float, folder: Path, *, users: int = 30) -> tuple[dict[str, Any], Found, list[str], str]:
    """Kill replicas under users for so long; return the figures, what all say of the turns, and what is wrong."""
    chance, kills = random.Random(1), 0
    with Receiver() as receiver:
        with replicas(folder, receiver) as (url, started):
            asking, begin = StreamUsers(url), time.monotonic()
            asking.start(users)
            time.sleep(3)
            while time.monotonic() - begin < seconds:
                killed = chance.choice(started)
                killed.kill()
                kills += 1
                killed.wait()
                time.sleep(chance.uniform(3, 10))
            asking.stop()
            notes = Users([url])
            notes.threads = {told.run_id: told.thread_id for told in asking.streams}
            notes.ended = {told.run_id: told.status for told in asking.streams if told.status}
            until(lambda: not has_running(notes, url), 60)
            found = compare(notes, url, receiver)
            wrong = _wrong(asking, url)
        log = "".join(replica.log for replica in started)
    statuses = Counter(told.status for told in asking.streams)
    figures = {
        "fault": f"replicas killed {kills} times",
        "length": round(seconds),
        "replicas": REPLICAS,
        "turns": len(asking.streams),
        "runs": 0,
        "lost": len(wrong) + len(found.differing) + len(found.threads),
        "doubled": len(found.doubled),
        "stuck": len(found.stuck),
        "seconds to recover": round(asking.longest_silence_s, 1),
        "turns cut by a kill": statuses["failed"],
        "refused": dict(asking.refused),
        "log lines": len(log.splitlines()),
    }
    return figures, found, wrong, log


def _wrong(asking: StreamUsers, url: str) -> list[str]:
    """What streams have told that differs from what is stored, or is not theirs."""
    wrong: list[str] = []
    client = AgentClient(url)
    for told in asking.streams:
        answers = [event.content for event in told.events if isinstance(event, MessageEvent)]
        if told.error or not told.status:
            wrong.append(f"{told.run_id} was not told its end: {told.error}")
        if list(client.follow(told.run_id)) != told.events:
            wrong.append(f"{told.run_id} was told other events than are stored")
        if {answer.run_id for answer in answers} - {told.run_id}:
            wrong.append(f"{told.run_id} was told messages of another run")
        if told.status == "completed" and told.expected not in answers[-1].content:
            wrong.append(f"{told.run_id} was answered {answers[-1].content!r}")
    return wrong + _missing(asking.streams, url)


def _missing(streams: Sequence[Told], url: str) -> list[str]:
    """The runs whose streams and histories have not the same messages in the same order."""
    stored: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for thread_id in sorted({told.thread_id for told in streams}):
        answer = httpx.post(f"{url}/history", json={"thread_id": thread_id}, timeout=60).json()
        for message in answer["messages"]:
            stored[message["run_id"]].append((message["type"], message["content"]))
    missing: list[str] = []
    for told in streams:
        heard = [("human", told.message)]
        heard += [(e.content.type, e.content.content) for e in told.events if isinstance(e, MessageEvent)]
        if stored[told.run_id] != heard:
            missing.append(f"{told.run_id} is stored as {stored[told.run_id]}, told was {heard}")
    return missing
