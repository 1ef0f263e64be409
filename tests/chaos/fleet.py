"""Processes that end spans until they are killed, and a strict backend that fails on demand."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from telemetry.export import otlp
from telemetry.testing.receiver import Answer, Receiver, Request
from tests.processes import ROOT, until

PATIENCE_S = 60


@dataclass
class Worker:
    """One process that ends spans, named by its run and their numbers."""

    run: str
    pid: int
    done: Path
    log: Path
    folder: Path
    fleet: "Fleet"

    def __post_init__(self) -> None:
        [lock] = until(lambda: list(self.folder.glob(f"*-{self.pid}-*.lock")), PATIENCE_S, self._said)
        # Open it now: whoever adopts the file removes it.
        self._fd = os.open(lock, os.O_RDONLY)

    @property
    def committed(self) -> int:
        """The watermark that the process itself publishes."""
        return struct.unpack("<Q", os.pread(self._fd, 8, 0) or bytes(8))[0]

    @property
    def resident(self) -> int:
        """Its memory in KiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def names(self, number: int) -> list[str]:
        """The names of its first spans."""
        return [f"{self.run}-{n}" for n in range(number)]

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self.fleet.order(wait=self.pid)

    def stop(self) -> None:
        """SIGTERM, and its own end."""
        os.kill(self.pid, signal.SIGTERM)
        self.join()

    def join(self) -> None:
        """Wait for its own end."""
        assert self.fleet.order(wait=self.pid) == 0, self._said()

    def worked(self) -> bool:
        """Whether it has ended all its spans."""
        return self.done.exists()

    def _said(self) -> str:
        return self.log.read_text() if self.log.exists() else "it said nothing"


class Fleet:
    """Starts workers that share a spool folder and a backend."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path, endpoint: str) -> None:
        self._process = process
        self._numbers = count()
        self._logs = folder
        self._env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "TELEMETRY_SPOOL_DIR": str(folder / "spool")}

    def start(
        self,
        spans: int = 0,
        *,
        pace: float = 0.002,
        size: int = 100,
        then: str = "wait",
        env: Mapping[str, str] | None = None,
        **more: int,
    ) -> Worker:
        """A new worker; when its spans have ended it exits, or waits for a signal."""
        run = f"r{next(self._numbers)}"
        log = self._logs / f"{run}.log"
        settings = {**self._env, "OTEL_EXPORTER_OTLP_TIMEOUT": "8", "OTEL_BSP_SCHEDULE_DELAY": "50", **(env or {})}
        pid = self.order(run=run, spans=spans, pace=pace, size=size, then=then, log=str(log), env=settings, **more)
        return Worker(run, pid, log.with_suffix(".done"), log, Path(settings["TELEMETRY_SPOOL_DIR"]), self)

    def order(self, **order: object) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Backend:
    """A receiver at a fixed port that breaks and mends; what it accepted before a break stays counted."""

    def __init__(self) -> None:
        self._now = Receiver()
        self._now.__enter__()
        self._gone: list[Receiver] = []
        self._names: Counter[str] = Counter()
        self._counted: dict[int, int] = {}
        self.port = int(self._now.endpoint.rsplit(":", 1)[1])
        self.endpoint = self._now.endpoint

    def fail(self, fault: str) -> None:
        """Break, in the way that is named."""
        if fault == "down":
            self._now.__exit__()
            self._gone.append(self._now)
        else:
            self._now.answer = FAULTS[fault]

    def mend(self) -> None:
        """Answer 200 again."""
        if self._now in self._gone:
            self._now = Receiver(port=self.port)
            self._now.__enter__()
        self._now.answer = 200

    def close(self) -> None:
        """End."""
        if self._now not in self._gone:
            self._now.__exit__()

    @property
    def requests(self) -> list[Request]:
        """Every request there was."""
        return [request for receiver in self._receivers() for request in receiver.requests]

    @property
    def names(self) -> Counter[str]:
        """How often each span was accepted."""
        for receiver in self._receivers():
            spans = receiver.spans
            self._names.update(span.name for span in spans[self._counted.get(id(receiver), 0) :])
            self._counted[id(receiver)] = len(spans)
        return self._names

    def _receivers(self) -> list[Receiver]:
        return [*self._gone, *([self._now] if self._now not in self._gone else [])]

    def has(self, names: list[str]) -> bool:
        """Whether all of these were accepted."""
        return not set(names) - self.names.keys()

    def torn(self) -> int:
        """How many requests came whole and were malformed all the same."""
        return sum(r.status == 400 and len(r.body) == int(r.headers["content-length"]) for r in self.requests)

    def repeats(self) -> int:
        """How many accepted requests brought a span again."""
        seen: set[str] = set()
        repeats = 0
        for request in self.requests:
            if request.status == 200:
                names = {s.name for s in otlp.decode(request.body, "application/x-protobuf", "gzip")}
                repeats += bool(names & seen)
                seen |= names
        return repeats


def _slow(_: Request) -> Answer:
    time.sleep(0.3)
    return 200


def _above(limit: int, status: int = 413) -> Callable[[Request], Answer]:
    return lambda request: status if len(request.body) > limit else 200


FAULTS: dict[str, Any] = {
    "down": None,
    "503": 503,
    "429": (429, {"Retry-After": "1"}),
    "500": 500,
    "401": 401,
    "413 above 1 MB": _above(1_000_000),
    "500 above 1 MB": _above(1_000_000, 500),
    "hang": Receiver.hang,
    "slow": _slow,
    "reset": Receiver.reset,
    "half an answer": Receiver.half,
}


@contextmanager
def fleet(folder: Path) -> Iterator[tuple[Fleet, Backend]]:
    """A fleet and its backend."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    backend = Backend()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.nursery"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Fleet(process, folder, backend.endpoint), backend
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            backend.close()
