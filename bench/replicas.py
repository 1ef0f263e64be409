"""Turns a second of replicas behind nginx on one Postgres: `python -m bench.replicas [SECONDS]`.

Everything shares this machine, also the users. What tells about a larger one is the processor time: that of a replica
and of Postgres for each turn.
"""

import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from bench.sink import SinkClient, sink
from tests.nginx import nginx
from tests.postgres import Postgres, postgres_server
from tests.processes import Process, free_port, start

SECONDS = 30.0
USERS = 24
WARM_UP_S = 8.0
MESSAGE = {"message": "What is 12*34?"}
# Replicas, and whether their turns are traced.
ROWS = ((1, False), (1, True), (3, False), (3, True))
_HEADER = (
    "replicas",
    "traced",
    "turns",
    "turns/s",
    "p50 s",
    "p99 s",
    "replica CPU ms",
    "Postgres CPU ms",
    "connections",
)


@dataclass
class Users:
    """Users who stream one turn after the other, each in threads of three turns."""

    url: str
    seconds: list[float] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Let all of them begin."""
        self._running = [threading.Thread(target=self._ask, args=(user,)) for user in range(USERS)]
        for user in self._running:
            user.start()

    def stop(self) -> None:
        """Let each come to the end of its turn."""
        self._stopped.set()
        for user in self._running:
            user.join(120)

    def _ask(self, user: int) -> None:
        with httpx.Client(base_url=self.url, timeout=120) as client:
            for number in itertools.count():
                if self._stopped.is_set():
                    return
                begin = time.perf_counter()
                thread = f"{os.getpid()}-{user}-{number // 3}"
                client.post("/stream", json={**MESSAGE, "thread_id": thread}).raise_for_status()
                self.seconds.append(time.perf_counter() - begin)


def main(seconds: float) -> None:
    """Print the table."""
    print("| " + " | ".join(_HEADER) + " |\n|" + " ---: |" * len(_HEADER))
    with sink() as endpoint:
        for replicas, is_traced in ROWS:
            print("| " + " | ".join(measure(replicas, endpoint if is_traced else "", seconds)) + " |", flush=True)
        counts = SinkClient(endpoint).read_counts()
    print(f"\n{counts['spans']:,} spans arrived, {counts['sent'] / 1e6:.1f} MB.")


def measure(replicas: int, endpoint: str, seconds: float) -> Sequence[str]:
    """Return a row of the table."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        postgres_server() as database,
        _replicas(Path(folder), replicas, database, endpoint) as (url, processes),
    ):
        users = Users(url)
        users.start()
        time.sleep(WARM_UP_S)
        pids = [process.popen.pid for process in processes]
        before, begin, done = (_cpu(pids), _cpu_of_postgres(database)), time.perf_counter(), len(users.seconds)
        time.sleep(seconds / 2)
        connections = _connections(database)
        time.sleep(seconds / 2)
        replica_cpu, postgres_cpu = _cpu(pids) - before[0], _cpu_of_postgres(database) - before[1]
        turns, took = sorted(users.seconds[done:]), time.perf_counter() - begin
        users.stop()
    number = len(turns)
    return (
        str(replicas),
        "yes" if endpoint else "no",
        f"{number:,}",
        f"{number / took:.1f}",
        f"{turns[number // 2]:.2f}",
        f"{turns[number * 99 // 100]:.2f}",
        f"{replica_cpu / number * 1e3:.1f}",
        f"{postgres_cpu / number * 1e3:.1f}",
        str(connections),
    )


@contextmanager
def _replicas(folder: Path, number: int, database: Postgres, endpoint: str) -> Iterator[tuple[str, list[Process]]]:
    with ExitStack() as stack:
        urls, processes = list[str](), list[Process]()
        for at in range(number):
            port = free_port()
            env = {
                "PORT": str(port),
                "DATA_DIR": str(folder / str(at)),
                "DATABASE_URL": database.url,
                "DEMO_PACE_S": "0",
                "TELEMETRY_SPOOL_DIR": str(folder / f"spool-{at}"),
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            }
            urls.append(f"http://127.0.0.1:{port}")
            command = [sys.executable, "-m", "app"]
            processes.append(stack.enter_context(start(command, env, f"{urls[-1]}/health/ready", 180)))
        yield stack.enter_context(nginx(folder, urls, "proxy_buffering off;")), processes


def _connections(database: Postgres) -> int:
    with psycopg.connect(database.url) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        ).fetchone()
    return row[0] - 1 if row else 0


def _cpu_of_postgres(database: Postgres) -> float:
    return _cpu(database.processes())


def _cpu(pids: Sequence[int]) -> float:
    """Return the processor time of these processes and of those of their children that have ended, in seconds."""
    ticks = 0
    for pid in pids:
        # One that has ended meanwhile is counted by its parent.
        with suppress(FileNotFoundError):
            # After the name, which may have blanks, utime to cstime are the 12th to the 15th field.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
