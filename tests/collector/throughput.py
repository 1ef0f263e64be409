"""`python -m tests.collector.throughput` prints how many spans each configuration passes in a second of its CPU."""

import contextlib
import io
import itertools
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from telemetry.export import otlp
from telemetry.testing import Receiver
from telemetry.testing.receiver import Request
from tests import processes
from tests.collector.otelcol import HEADERS, Collector, span

REQUESTS, PER_REQUEST, SENDERS = 200, 20, 8
WORDS = ("the", "tool", "was", "asked", "for", "weather", "in", "Lisbon", "and", "answered", "that", "it", "rains")
CONFIGS = {
    "stateless": ("stateless", ""),
    "stateless, uncompressed": ("stateless", "exporters::otlp_http/backend::compression: none"),
    "stateless, without the fence": (
        "stateless",
        "service::pipelines::traces::processors: [memory_limiter, probabilistic_sampler]",
    ),
    "durable": ("durable", ""),
    "tail, all kept": ("tail", "processors::tail_sampling::decision_wait: 1s"),
}


class Counting(Receiver):
    """A backend that counts bytes instead of reading spans, so that the machine's cores are the collector's."""

    def _judge(self, request: Request) -> tuple[int, list[otlp.Span]]:  # noqa: ARG002 - not read, which is the point
        return 200, []


def body(seed: int) -> bytes:
    """Twenty spans of 29 kB of text each."""
    words = itertools.islice(itertools.cycle(WORDS), seed % len(WORDS), None)
    text = " ".join(f"{word}{number % 977}" for number, word in zip(range(3_600), words, strict=False))
    return b"".join(otlp.encode(otlp.RedactedSpan.of(span(**{"input.value": text}))) for _ in range(PER_REQUEST))


def measure(config: str, overlay: str, bodies: list[bytes]) -> tuple[float, float]:
    """Return spans for a second of CPU, and resident megabytes."""
    with Counting() as backend, tempfile.TemporaryDirectory() as folder:
        env = {"COLLECTOR_TAIL_PERCENTAGE": "100"}
        with Collector(config, backend.endpoint, Path(folder), env, overlay) as collector:
            before = collector.metric("otelcol_process_cpu_seconds")
            with httpx.Client(trust_env=False, timeout=60) as client, ThreadPoolExecutor(SENDERS) as pool:
                list(pool.map(lambda one: _send(client, collector.endpoint, one), bodies))
            sent = len(bodies) * PER_REQUEST
            processes.until(lambda: collector.metric("otelcol_exporter_sent_spans") >= sent, 120)
            spent = collector.metric("otelcol_process_cpu_seconds") - before
            return sent / spent, collector.metric("otelcol_process_memory_rss") / 1e6


def _send(client: httpx.Client, endpoint: str, one: bytes) -> None:
    while client.post(f"{endpoint}/v1/traces", content=one, headers=HEADERS).status_code != 200:
        time.sleep(0.05)


def main() -> None:
    """Measure each configuration and print a line for it."""
    bodies = [body(seed) for seed in range(REQUESTS)]
    for name, (config, overlay) in CONFIGS.items():
        with contextlib.redirect_stdout(io.StringIO()):  # the collector's own log
            rate, megabytes = measure(config, overlay, bodies)
        sys.stdout.write(f"{name:30} {rate:7.0f} spans per CPU second, {megabytes:4.0f} MB\n")


if __name__ == "__main__":
    main()
