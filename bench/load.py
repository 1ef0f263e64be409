"""Measure 32 users at once: time to the first token, pauses of the garbage collector, and dropped spans."""

import asyncio
import gc
import time
from statistics import quantiles
from typing import Any

from bench.matrix import Cell
from bench.sink import SinkClient
from bench.variants import Tracing
from bench.workload import QUESTION, Conversation, agent, history

# As fast as models are: a turn of two calls and some fifty words takes about a second and a half.
PACE_S = 0.025
# After this many turns a user starts a new conversation: an endless one would measure its length instead.
TURNS = 5


def measure(cell: Cell, tracing: Tracing, sink: SinkClient) -> dict[str, Any]:
    """Return the figures of a load of turns, as fast as a model or as the machine allows."""
    return asyncio.run(_measure(cell, tracing, sink))


async def _measure(cell: Cell, tracing: Tracing, sink: SinkClient) -> dict[str, Any]:
    load = Load(cell, tracing, PACE_S if cell.mode == "paced" else 0.0)
    await load.user("warm", time.monotonic())
    await asyncio.to_thread(tracing.flush)
    sink.read_counts()
    load.first.clear()
    pauses = Pauses()
    gc.callbacks.append(pauses)
    cpu, until = time.process_time(), time.monotonic() + cell.seconds
    await asyncio.gather(*(load.user(str(number), until, number) for number in range(cell.concurrency)))
    seconds = time.monotonic() - until + cell.seconds
    gc.callbacks.remove(pauses)
    await asyncio.to_thread(tracing.flush)
    cpu = time.process_time() - cpu
    turns, cut = len(load.first), quantiles(load.first, n=100)
    return {
        "cpu_ms": cpu / turns * 1e3,
        "first_ms": {"p50": cut[49] * 1e3, "p95": cut[94] * 1e3, "p99": cut[98] * 1e3},
        "gc": {"pauses": len(pauses.ms), "longest_ms": max(pauses.ms, default=0.0), "all_ms": sum(pauses.ms)},
        "turns": turns,
        "turns_per_s": turns / seconds,
        "spans": sink.read_counts()["spans"] / turns,
    }


class Load:
    """Users who talk to one agent."""

    def __init__(self, cell: Cell, tracing: Tracing, pace_s: float) -> None:
        self.first: list[float] = []
        self._cell = cell
        self._tracing = tracing
        self._pace_s = pace_s
        self._graph = agent(checkpointer=cell.checkpointer, pace_s=pace_s)

    async def user(self, name: str, until: float, number: int = 0) -> None:
        """Take turns until this time, at least one; each user starts a little after the previous one."""
        await asyncio.sleep(number * self._pace_s)
        talk = 0
        while not talk or time.monotonic() < until:
            talk += 1
            messages = history(self._cell.history)
            conversation = Conversation(self._graph, f"{name}-{talk}", messages, True, self._tracing.callbacks)
            for _ in range(TURNS):
                await self._turn(conversation)
                if time.monotonic() >= until:
                    break

    async def _turn(self, conversation: Conversation) -> None:
        began, first = time.perf_counter(), 0.0
        with self._tracing.around(conversation.thread):
            async for word in conversation.send(QUESTION):
                if word and not first:
                    first = time.perf_counter() - began
        self.first.append(first)


class Pauses:
    """How long each garbage collection took, in milliseconds."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self._began = 0.0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        """Note the start or the end of a collection."""
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.ms.append((time.perf_counter() - self._began) * 1e3)
