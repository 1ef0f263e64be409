"""What each stage between a finished span and the wire costs: spans a second, and how long one takes."""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, quantiles
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from app.agents import load
from app.models.models import load_models
from telemetry import otlp, wire
from telemetry.settings import Settings
from telemetry.testing import recording

STAGES = ("shape", "redact", "brief", "name", "preview", "shorten")
SENTENCE = "It was the best of times, it was the worst of times, it was the age of wisdom; "


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    stage: str
    seconds: Sequence[float]
    rounds: int

    def __str__(self) -> str:
        cut = quantiles(self.seconds, n=100)
        p50, p99 = cut[49] * 1e6, cut[98] * 1e6
        turn = sum(self.seconds) / self.rounds * 1e3
        return f"{self.stage:<10}{1 / mean(self.seconds):>12,.0f}{p50:>12,.0f}{p99:>12,.0f}{turn:>12.2f}"


def main() -> None:
    """Print a table for a thread of few messages and one for a thread of many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="how often each span goes through each stage")
    rounds = parser.parse_args().rounds
    for messages in (4, 200):
        spans = asyncio.run(turn(messages))
        sent = sum(len(wire.prepare(span, wire.stages(Settings()))) for span in spans)
        plain = sum(len(wire.prepare(span, ())) for span in spans)
        print(f"\n{len(spans)} spans of a turn with a tool on {messages} messages: {plain:,} -> {sent:,} bytes")
        print(f"{'stage':<10}{'spans/s':>12}{'p50 us':>12}{'p99 us':>12}{'ms a turn':>12}")
        for row in rows(spans, rounds):
            print(row)


async def turn(messages: int) -> Sequence[ReadableSpan]:
    """Return the spans of a turn with two model calls and a tool, on a thread of so many messages."""
    kinds = [HumanMessage, AIMessage]
    history = [kinds[at % 2](f"{at}: {SENTENCE * 4}", id=str(at)) for at in range(messages)]
    graph = load("chatbot", load_models("demo"), InMemorySaver())
    with recording() as recorded:
        with telemetry.scope(session_id="t-1", user_id="ada", agent="chatbot"), telemetry.span("turn"):
            asked = {"messages": [*history, HumanMessage("What is 12*34?")]}
            await graph.ainvoke(asked, {"configurable": {"thread_id": "t-1"}})
        return recorded.settled()


def rows(spans: Sequence[ReadableSpan], rounds: int) -> list[Row]:
    """Return what each stage takes of what the stage before it made, then all stages, then all of it."""
    stages = wire.stages(Settings())
    named = dict(zip(STAGES, stages, strict=True))
    steps: dict[str, Callable[[Any], Any]] = {"from SDK": otlp.from_sdk, **named, "encode": otlp.encode}
    taken: dict[str, list[float]] = {name: [] for name in (*steps, "stages", "prepare")}
    for span in list(spans) * rounds:
        value: Any = span
        for name, step in steps.items():
            value, seconds = timed(step, value)
            taken[name].append(seconds)
        taken["stages"].append(sum(taken[name][-1] for name in STAGES))
        taken["prepare"].append(timed(lambda each: wire.prepare(each, stages), span)[1])
    return [Row(name, seconds, rounds) for name, seconds in taken.items()]


def timed(step: Callable[[Any], Any], value: Any) -> tuple[Any, float]:
    """Return what a step makes of a value, and the CPU seconds that this thread took for it."""
    began = time.thread_time()
    made = step(value)
    return made, time.thread_time() - began


if __name__ == "__main__":
    main()
