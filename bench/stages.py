"""Measure each stage between a finished span and its bytes: spans per second, and the time for one."""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, quantiles
from typing import Any, get_args

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from app.agents import load
from app.models.models import load_models
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare, stage_name
from telemetry.settings import Settings
from telemetry.testing import recording

SHAPES: Sequence[str] = get_args(Settings.model_fields["shape"].annotation)
SENTENCE = "It was the best of times, it was the worst of times, it was the age of wisdom; "


@dataclass(frozen=True)
class StageCost:
    """One line of the table."""

    stage: str
    seconds: Sequence[float]
    rounds: int

    def __str__(self) -> str:
        cut = quantiles(self.seconds, n=100)
        p50, p99 = cut[49] * 1e6, cut[98] * 1e6
        turn = sum(self.seconds) / self.rounds * 1e3
        return f"{self.stage:<16}{1 / mean(self.seconds):>12,.0f}{p50:>12,.0f}{p99:>12,.0f}{turn:>12.2f}"


def main() -> None:
    """Print a table for a thread with few messages and one for a thread with many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="how often each span goes through each stage")
    rounds = parser.parse_args().rounds
    for messages in (4, 200):
        spans = asyncio.run(turn(messages))
        sent = sum(len(prepare(span, build_stages(Settings()))) for span in spans)
        plain = sum(len(otlp.encode(otlp.RedactedSpan.of(otlp.from_sdk(span)))) for span in spans)
        print(f"\n{len(spans)} spans of a turn with a tool on {messages} messages: {plain:,} -> {sent:,} bytes")
        print(f"{'stage':<16}{'spans/s':>12}{'p50 us':>12}{'p99 us':>12}{'ms a turn':>12}")
        for row in rows(spans, rounds):
            print(row)
        print(f"\n{'TELEMETRY_SHAPE':<16}{'bytes':>12}{'format ms':>12}{'all ms':>12}  a turn")
        for shape in SHAPES:
            print(shape_cost(shape, spans, rounds))


async def turn(messages: int) -> Sequence[ReadableSpan]:
    """Return the spans of a turn with two model calls and a tool, on a thread with this many messages."""
    kinds = [HumanMessage, AIMessage]
    history = [kinds[at % 2](f"{at}: {SENTENCE * 4}", id=str(at)) for at in range(messages)]
    graph = load("chatbot", load_models("demo"), InMemorySaver())
    with recording() as recorded:
        with telemetry.scope(session_id="t-1", user_id="ada", agent="chatbot"), telemetry.span("turn"):
            state = {"messages": [*history, HumanMessage("What is 12*34?")]}
            await graph.ainvoke(state, {"configurable": {"thread_id": "t-1"}})
        return recorded.settled()


def rows(spans: Sequence[ReadableSpan], rounds: int) -> list[StageCost]:
    """Return the cost of each stage, of all stages, and of `prepare`, which also reads and encodes the span."""
    stages = build_stages(Settings())
    named = {stage_name(stage): stage for stage in stages}
    steps: dict[str, Callable[[Any], Any]] = {"from SDK": otlp.from_sdk, **named, "encode": otlp.encode}
    times: dict[str, list[float]] = {name: [] for name in (*steps, "stages", "prepare")}
    for span in list(spans) * rounds:
        value: Any = span
        for name, step in steps.items():
            value, seconds = timed(step, value)
            times[name].append(seconds)
        times["stages"].append(sum(times[name][-1] for name in named))
        times["prepare"].append(timed(lambda each: prepare(each, stages), span)[1])
    return [StageCost(name, seconds, rounds) for name, seconds in times.items()]


def shape_cost(shape: str, spans: Sequence[ReadableSpan], rounds: int) -> str:
    """Return what a turn takes in a format: its bytes, and the milliseconds of the format and of everything."""
    stages = build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape}))
    data = [otlp.from_sdk(span) for span in spans]
    formats, everything, sent = list[float](), list[float](), 0
    for _ in range(rounds):
        formats.append(sum(timed(stages[0], each)[1] for each in data))
        prepared = [timed(lambda each: prepare(each, stages), span) for span in spans]
        everything.append(sum(seconds for _, seconds in prepared))
        sent = sum(len(body) for body, _ in prepared)
    # Other work on the machine only adds to the times.
    return f"{shape:<16}{sent:>12,}{min(formats) * 1e3:>12.2f}{min(everything) * 1e3:>12.2f}"


def timed(step: Callable[[Any], Any], value: Any) -> tuple[Any, float]:
    """Return the result of a step, and the CPU seconds of this thread for it."""
    began = time.thread_time()
    result = step(value)
    return result, time.thread_time() - began


if __name__ == "__main__":
    main()
