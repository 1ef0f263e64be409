"""Measure a turn: CPU time of the process and of the event loop's thread, bytes and spans."""

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.matrix import Cell
from bench.sink import SinkClient
from bench.variants import Tracing
from bench.workload import GREETING, QUESTION, Conversation, agent, history

TURNS = 3
# The smallest number of conversations between two flushes: spans are not sent after every turn.
CONVERSATIONS = 4
MAX_PARTS = 40


def measure(cell: Cell, tracing: Tracing, sink: SinkClient) -> dict[str, Any]:
    """Return the figures of a turn in this cell."""
    return asyncio.run(_measure(cell, tracing, sink))


async def _measure(cell: Cell, tracing: Tracing, sink: SinkClient) -> dict[str, Any]:
    graph = agent(checkpointer=cell.checkpointer)

    def conversations(batch: int) -> list[Conversation]:
        threads = [f"{batch}-{number}" for number in range(max(cell.concurrency, CONVERSATIONS))]
        streamed = cell.mode == "stream"
        return [Conversation(graph, name, history(cell.history - 2), streamed, tracing.callbacks) for name in threads]

    await _talk(conversations(0)[:1], tracing, cell)
    tracing.flush()
    parts: list[dict[str, float]] = []
    while not parts or (sum(part["cpu"] for part in parts) < cell.seconds and len(parts) < MAX_PARTS):
        batch = conversations(len(parts) + 1)
        for each in batch:  # a first turn, which records the history
            await turn(each, tracing, GREETING)
        await asyncio.to_thread(tracing.flush)
        sink.read_counts()
        gc.collect()
        parts.append(await _measured(batch, tracing, cell) | sink.read_counts())
    return _per_turn(parts)


async def _measured(conversations: list[Conversation], tracing: Tracing, cell: Cell) -> dict[str, float]:
    cpu, loop = time.process_time(), time.thread_time()
    await _talk(conversations, tracing, cell)
    loop = time.thread_time() - loop
    await asyncio.to_thread(tracing.flush)
    cpu = time.process_time() - cpu
    return {"cpu": cpu, "loop": loop, "turns": TURNS * len(conversations)}


async def _talk(conversations: list[Conversation], tracing: Tracing, cell: Cell) -> None:
    async def talk(conversation: Conversation) -> None:
        for _ in range(TURNS):
            await turn(conversation, tracing, QUESTION)

    for first in range(0, len(conversations), cell.concurrency):
        await asyncio.gather(*map(talk, conversations[first : first + cell.concurrency]))


async def turn(conversation: Conversation, tracing: Tracing, question: str) -> None:
    """Send the question, and read the answer to its end."""
    with tracing.around(conversation.thread):
        async for _ in conversation.send(question):
            pass


def _per_turn(parts: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    totals = {key: sum(part[key] for part in parts) for key in ("turns", "bytes", "sent", "spans")}
    turns = totals["turns"]
    return {
        **cpu_times(parts),
        "kb": totals["bytes"] / turns / 1e3,
        "kb_sent": totals["sent"] / turns / 1e3,
        "spans": totals["spans"] / turns,
        "turns": turns,
    }


def cpu_times(parts: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the CPU milliseconds per turn in each part of the measured time, and their median."""
    each = {f"{key}_ms": [part[key] / part["turns"] * 1e3 for part in parts] for key in ("cpu", "loop")}
    return {"parts": each, **{key: median(values) for key, values in each.items()}}
