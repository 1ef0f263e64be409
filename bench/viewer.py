"""How fast the viewer takes spans and shows its pages: `python -m bench.viewer [TRACES] [FOLDER]`.

The traces go in by the viewer's own OTLP path. With FOLDER they stay there, and what is there already is used again.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import requests

from bench.runner import ROOT
from bench.viewer_traces import scores, traces, wide_trace
from telemetry.export import otlp

TRACES = 100_000
KEYS = ("pk-lf-local", "sk-lf-local")
PROTOBUF = {"content-type": "application/x-protobuf"}
BATCH = 50
REPEATS = 5
WIDE = (30, 300, 3_000)
LIMIT_BYTES = 64 * 2**30
# Phoenix takes more than two minutes to start on a machine that has other work.
START_S = 600
PAGES = {
    "the newest traces": "traces",
    "every trace": "traces?all=1",
    "the last 24 hours": "traces?since=24h",
    "one user": "traces?user=ivan",
    "one agent": "traces?name=research",
    "one session": "traces?session=talk-ada-10",
    "one model": "traces?model=gpt-5.6-sol",
    "one tool": "traces?tool=weather",
    "one error": "traces?error=RateLimitError",
    "one environment": "traces?environment=staging",
    "one version": "traces?version=1.3.0",
    "failed": "traces?status=failed",
    "waiting": "traces?status=waiting",
    "a status that no trace has": "traces?status=lost",
    "with errors": "traces?errors=1",
    "disliked": "traces?score=user-thumbs&at_most=0",
    "a frequent word": "traces?text=weather",
    "a rare word": "traces?text=refund",
    "two words": "traces?text=weather+paris",
    "two letters": "traces?text=%2512+p",
    "a word that no trace has": "traces?text=zeppelin",
    "an id": "traces?text=0000ffff",
    "a word, a model and a user": "traces?text=weather&model=gpt-5.6-sol&user=ada",
    **{
        f"sorted by {name}": f"traces?sort={name}"
        for name in ("latency", "first_token", "tokens", "cost", "status", "name")
    },
    "failed, sorted by latency": "traces?status=failed&sort=latency",
    "a day, sorted by latency": "traces?since=24h&sort=latency",
    "a word, sorted by cost": "traces?text=weather&sort=cost",
    "the sessions": "sessions",
    "the users": "users",
    "a session": "session?id=talk-ada-10",
    "overview, one hour": "overview?since=1h",
    "overview, 24 hours": "overview?since=24h",
    "overview, 7 days": "overview?since=7d",
    "overview, any time": "overview?since=",
}


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """A viewer of spans in its own process, with a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, files: Sequence[Path]) -> None:
        self.process, self.url, self._files = process, url, files
        self.client = requests.Session()
        self.client.trust_env, self.client.auth = False, KEYS

    def resident_mb(self, which: str = "VmRSS") -> float:
        """Return the memory of the process, or the most that it has had with `VmHWM`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1024

    def cpu_s(self) -> float:
        """Return the processor time of the process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def disk_mb(self) -> float:
        """Return the size of its files."""
        return sum(path.stat().st_size for folder in self._files for path in folder.rglob("*") if path.is_file()) / 1e6

    def post(self, path: str, spans: Iterable[otlp.Span]) -> None:
        """Send spans to its OTLP path."""
        body = b"".join(otlp.encode(otlp.RedactedSpan.of(span)) for span in spans)
        response = self.client.post(self.url + path, data=body, headers=PROTOBUF)
        response.raise_for_status()

    def seconds(self, address: str) -> float:
        """Return the processor time of a page, after a first one."""
        self.client.get(self.url + address).raise_for_status()
        begun = self.cpu_s()
        for _ in range(REPEATS):
            self.client.get(self.url + address).raise_for_status()
        return (self.cpu_s() - begun) / REPEATS


@contextmanager
def started(
    argv: Sequence[str], env: Mapping[str, str], url: str, health: str, files: Sequence[Path]
) -> Iterator[Server]:
    """Start a server, and stop it at the end of the block."""
    log = files[0] / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(argv, cwd=ROOT, env={"PATH": "/usr/bin:/bin", **env}, stdout=out, stderr=out) as process,  # noqa: S603 - our own
    ):
        server = Server(process, url, files)
        try:
            _until(lambda: server.client.get(url + health, timeout=5).ok, process, log)
            yield server
        finally:
            process.terminate()


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_S * 5):
        try:
            if ready():
                return
        except requests.ConnectionError:
            time.sleep(0.2)
        if process.poll() is not None:
            break
    raise RuntimeError(log.read_text())


@contextmanager
def viewer(folder: Path) -> Iterator[Server]:
    """Start a viewer whose file is in this folder."""
    port = free_port()
    env = {"VIEWER_DB": str(folder / "viewer.db"), "VIEWER_PORT": str(port), "VIEWER_MAX_BYTES": str(LIMIT_BYTES)}
    argv = [sys.executable, "-m", "telemetry.viewer"]
    with started(argv, env, f"http://127.0.0.1:{port}", "/api/public/health", [folder]) as server:
        yield server


def fill(server: Server, path: str, count: int) -> tuple[int, float]:
    """Send so many traces; return the number of spans and the seconds that the server took for them."""
    sent, took, made = 0, 0.0, traces(count, time.time_ns())
    while batch := [span for trace in islice(made, BATCH) for span in trace]:
        body = b"".join(otlp.encode(otlp.RedactedSpan.of(span)) for span in batch)
        begun = time.perf_counter()
        # Phoenix refuses what it cannot take yet.
        while (response := server.client.post(server.url + path, data=body, headers=PROTOBUF)).status_code == 503:
            time.sleep(0.5)
        took += time.perf_counter() - begun
        response.raise_for_status()
        sent += len(batch)
        if given := scores(batch) if "langfuse" in path or "public" in path else []:
            server.client.post(f"{server.url}/api/public/scores", json=given).raise_for_status()
    return sent, took


def main(count: int, folder: Path) -> None:
    """Print how fast the spans went in, and the processor time of each page."""
    is_new = not (folder / "viewer.db").exists()
    with viewer(folder) as server:
        if is_new:
            sent, took = fill(server, "/api/public/otel/v1/traces", count)
            for size in WIDE:
                server.post("/api/public/otel/v1/traces", wide_trace(size, time.time_ns()))
            print(
                f"{sent:,} spans of {count:,} traces in {took:.0f} s, {sent / took:,.0f} a second; "
                f"{server.resident_mb('VmHWM'):.0f} MB of memory at most, {server.disk_mb():,.0f} MB on disk"
            )
    with viewer(folder) as server:
        print("| page | ms |\n|---|---:|")
        addresses = {title: f"/project/local/{page}" for title, page in PAGES.items()}
        wide = {f"a trace of {size:,} spans": f"/project/local/traces/{_id(size)}" for size in WIDE}
        for title, address in (addresses | wide).items():
            print(f"| {title} | {server.seconds(address) * 1000:.0f} |", flush=True)
        print(f"\n{server.resident_mb():.0f} MB of memory")


def _id(size: int) -> str:
    return wide_trace(size, time.time_ns())[0].trace_id


if __name__ == "__main__":
    number = int(sys.argv[1]) if sys.argv[1:] else TRACES
    if sys.argv[2:]:
        Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
        main(number, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(number, Path(temporary))
