"""Measure what metrics add to a turn: the instruments' work when its spans end, and one collection."""

import argparse
import asyncio
import time
from collections.abc import Sequence
from statistics import median

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from app.agents import load
from app.models.models import load_models
from telemetry.export.stages import build_redactor
from telemetry.metrics.figures import observe
from telemetry.metrics.instruments import Instruments
from telemetry.metrics.spans import SpanMetrics
from telemetry.settings import Settings
from telemetry.testing import recording

PARTS = 200


def main() -> None:
    """Print the CPU time that the metrics of a turn take, and that of collecting them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how many turns each part has")
    rounds = parser.parse_args().rounds
    spans = asyncio.run(streamed_turn())
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("bench")
    observe(meter)
    metrics = SpanMetrics(Instruments(meter, build_redactor(Settings()).redact_text))
    parts = [cpu_ms(metrics, spans, rounds) for _ in range(PARTS)]
    began = time.process_time()
    data = reader.get_metrics_data()
    collected = (time.process_time() - began) * 1e3
    points = [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    print(f"{len(spans)} spans of a streamed turn with a tool, two model calls: {len(points)} series")
    print(f"recorded when its spans end   {sorted(parts)[PARTS // 4]:.3f} ms a turn (median {median(parts):.3f})")
    print(f"collected, once a minute      {collected:.1f} ms")


async def streamed_turn() -> Sequence[ReadableSpan]:
    """Return the spans of a streamed turn with two model calls and a tool."""
    graph = load("chatbot", load_models("demo"), InMemorySaver())
    with recording() as recorded:
        with telemetry.turn("chatbot", session_id="t-1", user_id="ada"):
            state = {"messages": [HumanMessage("What is 12*34?")]}
            config: RunnableConfig = {"configurable": {"thread_id": "t-1"}}
            async for _ in graph.astream(state, config, stream_mode="messages"):
                pass
        return recorded.settled()


def cpu_ms(metrics: SpanMetrics, spans: Sequence[ReadableSpan], rounds: int) -> float:
    """Return the CPU time of a turn's metrics, in milliseconds."""
    began = time.process_time()
    for _ in range(rounds):
        for span in spans:
            metrics.on_end(span)
    return (time.process_time() - began) / rounds * 1e3


if __name__ == "__main__":
    main()
