"""Resident memory over many turns, with and without tracing: `python -m bench.soak [TURNS]`."""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.runner import ROOT
from bench.sink import SinkClient, sink
from bench.variants import NAMES, SETTINGS, Tracing, start
from bench.workload import QUESTION, Conversation, agent

TURNS = 50_000
VARIANTS = ("off", "default", "recorder")
TURNS_OF_A_THREAD = 30
SAMPLES = 10


async def soak(turns: int, tracing: Tracing, backend: SinkClient) -> list[float]:
    """Run so many turns, most of them in long threads, some alone and some broken off; return the MB at each tenth."""
    graph, samples, long = agent(checkpointer=False), list[float](), list[Conversation]()
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
            samples.append(_resident_mb())
    return samples


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main(turns: int) -> None:
    """Run each variant in a process of its own, and print the table."""
    rows: dict[str, Sequence[float]] = {}
    with sink() as endpoint:
        for variant in VARIANTS:
            command = [sys.executable, "-m", "bench.soak", str(turns), variant, endpoint]
            with tempfile.TemporaryDirectory() as folder:
                env = {"PATH": "/usr/bin:/bin", "TELEMETRY_SPOOL_DIR": folder, **SETTINGS[variant]}
                ended = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
            rows[variant] = json.loads(ended.stdout.splitlines()[-1])
    print(f"| MB after … turns of {turns:,} | " + " | ".join(f"{n * 100 // SAMPLES} %" for n in range(1, SAMPLES + 1)))
    for variant, samples in rows.items():
        print(f"| {NAMES[variant]} | " + " | ".join(f"{each:.0f}" for each in samples) + " |")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(asyncio.run(soak(int(sys.argv[1]), start(*sys.argv[2:]), SinkClient(sys.argv[3])))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else TURNS)
