"""The cost of a turn: CPU of the whole process and of the event loop's thread, bytes and spans."""

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.backend import Backend
from bench.cells import Cell
from bench.tracing import Tracing
from bench.workload import GREETING, QUESTION, Conversation, agent, history

TURNS = 3
# So many conversations, at least, until what is still held is sent: it is not sent after every turn.
TOGETHER = 4
MOST = 40


def measure(cell: Cell, tracing: Tracing, backend: Backend) -> dict[str, Any]:
    """Return the figures of a turn in this cell."""
    return asyncio.run(_measure(cell, tracing, backend))


async def _measure(cell: Cell, tracing: Tracing, backend: Backend) -> dict[str, Any]:
    graph = agent(checkpointer=cell.checkpointer)

    def conversations(batch: int) -> list[Conversation]:
        threads = [f"{batch}-{number}" for number in range(max(cell.concurrency, TOGETHER))]
        streamed = cell.mode == "stream"
        return [Conversation(graph, name, history(cell.history - 2), streamed, tracing.callbacks) for name in threads]

    await _talk(conversations(0)[:1], tracing, cell)
    tracing.flush()
    parts: list[dict[str, float]] = []
    while not parts or (sum(part["cpu"] for part in parts) < cell.seconds and len(parts) < MOST):
        began = conversations(len(parts) + 1)
        for each in began:  # the turn before, which saw the history first
            await turn(each, tracing, GREETING)
        await asyncio.to_thread(tracing.flush)
        backend.counted()
        gc.collect()
        parts.append(await _measured(began, tracing, cell) | backend.counted())
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


async def turn(conversation: Conversation, tracing: Tracing, words: str) -> None:
    """Say this, and hear the answer to its end."""
    with tracing.around(conversation.thread):
        async for _ in conversation.say(words):
            pass


def _per_turn(parts: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    totals = {key: sum(part[key] for part in parts) for key in ("turns", "bytes", "sent", "spans")}
    turns = totals["turns"]
    return {
        **timed(parts),
        "kb": totals["bytes"] / turns / 1e3,
        "kb_sent": totals["sent"] / turns / 1e3,
        "spans": totals["spans"] / turns,
        "turns": turns,
    }


def timed(parts: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the CPU milliseconds of a turn in each part of the measured time, and the middle of them."""
    each = {f"{key}_ms": [part[key] / part["turns"] * 1e3 for part in parts] for key in ("cpu", "loop")}
    return {"parts": each, **{key: median(values) for key, values in each.items()}}
