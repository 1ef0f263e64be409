"""Measure what metrics add to a turn: the instruments' work when its spans end, and one collection."""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import median

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

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
    end(metrics, spans)
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
    alone = bare_sdk(Instruments(MeterProvider([InMemoryMetricReader()]).get_meter("bench"), str))
    print(f"{len(spans)} spans of a streamed turn with a tool, two model calls: {len(points)} series")
    for what, milliseconds in {
        "recorded when its spans end": [cpu_ms(lambda: end(metrics, spans), rounds) for _ in range(PARTS)],
        "of that, ten calls of the SDK": [cpu_ms(alone, rounds) for _ in range(PARTS)],
    }.items():
        print(f"{what:<30}{sorted(milliseconds)[PARTS // 4]:.3f} ms a turn (median {median(milliseconds):.3f})")
    print(f"{'collected, once a minute':<30}{collected:.1f} ms")


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


def end(metrics: SpanMetrics, spans: Sequence[ReadableSpan]) -> None:
    """End the spans of a turn."""
    for span in spans:
        metrics.on_end(span)


def bare_sdk(of: Instruments) -> Callable[[], None]:
    """Return what makes a turn's measurements with the SDK and nothing else: same attributes, same exemplars."""
    span = NonRecordingSpan(SpanContext(1, 1, False, TraceFlags(TraceFlags.SAMPLED)))
    sampled, plain = (set_span_in_context(each, Context()) for each in (span, INVALID_SPAN))
    call = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "demo", "gen_ai.request.model": "demo"}
    agent = {"gen_ai.agent.name": "chatbot"}
    model = [
        (of.operation_duration, 0.2, call, sampled),
        (of.first_chunk, 0.1, call, sampled),
        (of.token_usage, 60, {**call, "gen_ai.token.type": "input"}, plain),
        (of.token_usage, 20, {**call, "gen_ai.token.type": "output"}, plain),
    ]
    tool = (of.tool_duration, 0.01, {"gen_ai.tool.name": "calculator", **agent}, sampled)
    turn = [*model, *model, tool, (of.agent_duration, 0.5, agent, sampled)]

    def record() -> None:
        for instrument, value, attributes, context in turn:
            instrument.record(value, attributes, context)

    return record


def cpu_ms(work: Callable[[], None], rounds: int) -> float:
    """Return the CPU time of a turn's metrics, in milliseconds."""
    began = time.process_time()
    for _ in range(rounds):
        work()
    return (time.process_time() - began) / rounds * 1e3


if __name__ == "__main__":
    main()
