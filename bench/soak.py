"""Resident memory over many turns, with and without tracing: `python -m bench.soak [TURNS]`."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.runner import ROOT
from bench.sink import SinkClient, sink
from bench.variants import NAMES, SETTINGS, Tracing, start
from bench.workload import QUESTION, Conversation, agent

TURNS = 50_000
VARIANTS = ("off", "default", "recorder")
TURNS_OF_A_THREAD = 30
SAMPLES = 10


async def soak(turns: int, tracing: Tracing, backend: SinkClient) -> None:
    """Run so many turns, most of them in long threads, some alone and some broken off; print the MB at each tenth."""
    graph, long = agent(checkpointer=False), list[Conversation]()
    for number in range(turns):
        if not long or len(long[0].messages) >= 4 * TURNS_OF_A_THREAD:
            long = [Conversation(graph, f"long-{number}", [], number % 2 == 0, tracing.callbacks)]
        alone = number % 4 == 3
        conversation = Conversation(graph, f"alone-{number}", [], streamed=True) if alone else long[0]
        with tracing.around(conversation.thread):
            words = conversation.send(f"{QUESTION} This is question {number}.")
            async for _ in words:
                if number % 8 == 7:
                    break
            await words.aclose()  # pyright: ignore[reportAttributeAccessIssue] - a generator
        if (number + 1) % max(1, turns // SAMPLES) == 0:
            await asyncio.to_thread(tracing.flush)
            backend.read_counts()
            print(f"{_resident_mb():.0f}", flush=True)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main(turns: int) -> None:
    """Run each variant in a process of its own; print its figures as they come, and the table at the end."""
    rows: dict[str, list[str]] = {}
    with sink() as endpoint:
        for variant in VARIANTS:
            rows[variant] = []
            for sample in _samples(turns, variant, endpoint):
                rows[variant].append(sample)
                print(variant, f"{len(rows[variant]) * 100 // SAMPLES} %", sample, "MB", file=sys.stderr)
    print("| turns | " + " | ".join(NAMES[variant] for variant in rows) + " |")
    print("| ---: |" + " ---: |" * len(rows))
    for number, samples in enumerate(zip(*rows.values(), strict=True), 1):
        print(f"| {turns * number // SAMPLES:,} | " + " | ".join(f"{each} MB" for each in samples) + " |")


def _samples(turns: int, variant: str, endpoint: str) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.soak", str(turns), variant, endpoint]
    with tempfile.TemporaryDirectory() as folder:
        env = {"PATH": "/usr/bin:/bin", "TELEMETRY_SPOOL_DIR": folder, **SETTINGS[variant]}
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
            assert process.stdout  # noqa: S101 - it is a pipe
            yield from map(str.strip, process.stdout)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(soak(int(sys.argv[1]), start(*sys.argv[2:]), SinkClient(sys.argv[3])))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else TURNS)
