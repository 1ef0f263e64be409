"""Compare the spool with the stock batch processor, and measure how soon a span is on disk."""

import asyncio
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import telemetry
from app.__main__ import SWITCH_INTERVAL_S
from app.agents import load
from app.models.models import load_models
from bench.sink import sink
from telemetry.configure import activate, deactivate
from telemetry.delivery.writer import Prepare, SpoolProcessor
from telemetry.export.stages import build_stages, prepare_all
from telemetry.otel.request_filter import RequestFilter
from telemetry.pipeline import Pipeline
from telemetry.provider import build_provider
from telemetry.settings import Settings

SPANS = 4_000
# 2 KB of text, as in a short model call.
ATTRIBUTES = {f"text.{n}": f"{n}: It was the best of times, it was the worst of times. " * 9 for n in range(4)}
SECONDS = 6.0
TURNS = 32
BUSY = 4
# The switch interval, and whether garbage collection leaves out what there was before: Python's own, and the service's.
PROCESSES = {"a program of your own": (0.005, False), "python -m app": (SWITCH_INTERVAL_S, True)}


def main() -> None:
    """Print the tables."""
    with sink() as endpoint:
        print(f"\nEnding {SPANS} spans of 2 KB, 500 a second, to a backend that answers")
        print(f"{'processor':<34}{'on_end p50 us':>14}{'p99 us':>10}{'CPU us/span':>13}")
        for name, make in processors(endpoint).items():
            print(f"{name:<34}{measure_on_end(make)}")
        for process, (interval, is_frozen) in PROCESSES.items():
            print(f"\nFrom the end of a span to the disk, ms; {process}, switch interval {interval * 1e3:g} ms")
            print(f"{'load':<34}{'spans':>8}{'p50':>10}{'p99':>10}{'max':>10}{'turns/s':>10}")
            for name, load_with in LOADS.items():
                print(f"{name:<34}{measure_lag(endpoint, load_with, interval, is_frozen=is_frozen)}")
        print("\nOne turn, ms")
        print(f"{'backend':<34}{'p50':>10}{'p99':>10}")
        latencies = {where: turn_latency(endpoint + path) for where, path in {"answers": "", "hangs": "/hang"}.items()}
        for where, (p50, p99) in latencies.items():
            print(f"{where:<34}{p50:>10.1f}{p99:>10.1f}")
        print(f"{'hung to healthy':<34}{_ratio(latencies, 0):>10.2f}{_ratio(latencies, 1):>10.2f}")


def processors(endpoint: str) -> dict[str, Callable[[Path], SpanProcessor]]:
    """Return the compared span processors by name."""
    stages = build_stages(Settings())
    prepare = partial(prepare_all, stages=stages)

    def spool(prepare: Prepare, **more: object) -> Callable[[Path], SpanProcessor]:
        return lambda folder: SpoolProcessor(_settings(endpoint, folder, **more), prepare)

    return {
        "stock batch processor": lambda _: BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")),
        "spool, the SDK's encoding": spool(lambda spans: [encode_spans([span]).SerializeToString() for span in spans]),
        "spool, all stages": spool(prepare),
        "spool, all stages, write-through": spool(prepare, spool_write_through=True),
        "spool, all stages, fsync": spool(prepare, spool_fsync=True),
    }


def measure_on_end(make: Callable[[Path], SpanProcessor]) -> str:
    """Return the time of `on_end` over many spans, and the total CPU time per span."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        processor = make(Path(folder))
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(_Timed(processor, times))
        tracer = provider.get_tracer("bench")
        base = _base_cpu()
        began = time.process_time()
        for _ in range(SPANS):
            tracer.start_span("span", attributes=ATTRIBUTES).end()
            time.sleep(0.002)
        processor.force_flush()
        cpu = time.process_time() - began
        provider.shutdown()
    cut = quantiles(times, n=100)
    return f"{median(times) * 1e6:>14.1f}{cut[98] * 1e6:>10.0f}{(cpu - base) / SPANS * 1e6:>13.0f}"


class _Timed(SpanProcessor):
    def __init__(self, then: SpanProcessor, times: list[float]) -> None:
        self._then = then
        self._times = times

    def on_end(self, span: ReadableSpan) -> None:
        began = time.perf_counter()
        self._then.on_end(span)
        self._times.append(time.perf_counter() - began)


def _base_cpu() -> float:
    """Return the CPU time of the same loop without a processor."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("bench")
    began = time.process_time()
    for _ in range(SPANS // 4):
        tracer.start_span("span", attributes=ATTRIBUTES).end()
        time.sleep(0.002)
    return (time.process_time() - began) * 4


@contextmanager
def tracing(endpoint: str) -> Iterator[SpoolProcessor]:
    """Trace code inside, through a spool to this backend."""
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(endpoint, Path(folder))
        last = SpoolProcessor(settings, partial(prepare_all, stages=build_stages(settings)))
        provider = build_provider(settings, "bench", [last])
        activate(Pipeline(provider), settings, RequestFilter(last), last)
        try:
            yield last
        finally:
            deactivate()
            provider.shutdown()


def measure_lag(
    endpoint: str, load_with: Callable[[], int], switch_interval_s: float, *, is_frozen: bool = False
) -> str:
    """Return the time from the end of a span to the disk under this load, and how many turns ended in a second."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(switch_interval_s)
    gc.collect()
    if is_frozen:
        gc.freeze()
    try:
        with tracing(endpoint) as last:
            began = time.monotonic()
            ended = load_with()
            seconds = time.monotonic() - began
            last.force_flush()
            lags = list(last.writer.lags)
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()
    cut = quantiles(lags, n=100)
    times = "".join(f"{each * 1e3:>10.1f}" for each in (cut[49], cut[98], max(lags)))
    return f"{len(lags):>8}{times}" + (f"{ended / seconds:>10.1f}" if ended else "")


def idle() -> int:
    """End a span every 20 ms; no turn ends."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with telemetry.span("span"):
            pass
        time.sleep(0.02)
    return 0


def turns() -> int:
    """Run turns of many users at once; return how many."""
    return asyncio.run(_turns(TURNS))


def busy() -> int:
    """End a span every 20 ms while other threads never release the interpreter lock voluntarily."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=spin) for _ in range(BUSY)]
    for thread in threads:
        thread.start()
    idle()
    over.set()
    for thread in threads:
        thread.join()
    return 0


LOADS: dict[str, Callable[[], int]] = {
    "idle": idle,
    f"{TURNS} turns at once": turns,
    f"beside {BUSY} busy threads": busy,
}


async def _turns(users: int) -> int:
    graph = load("chatbot", load_models("demo"), InMemorySaver())
    until = time.monotonic() + SECONDS

    async def user(number: int) -> int:
        turn = 0
        while time.monotonic() < until:
            turn += 1
            await _turn(graph, f"{number}-{turn}")
        return turn

    return sum(await asyncio.gather(*map(user, range(users))))


async def _turn(graph: object, thread: str) -> None:
    with telemetry.scope(session_id=thread, user_id="ada", agent="chatbot"), telemetry.span("turn"):
        state = {"messages": [HumanMessage("What is 12*34?")]}
        await graph.ainvoke(state, {"configurable": {"thread_id": thread}})  # pyright: ignore[reportAttributeAccessIssue] - a compiled graph


def turn_latency(endpoint: str) -> tuple[float, float]:
    """Return the p50 and p99 of a turn in milliseconds."""
    times: list[float] = []

    async def run() -> None:
        graph = load("chatbot", load_models("demo"), InMemorySaver())
        for number in range(300):
            began = time.perf_counter()
            await _turn(graph, str(number))
            times.append(time.perf_counter() - began)

    with tracing(endpoint):
        asyncio.run(run())
    cut: Sequence[float] = quantiles(times, n=100)
    return cut[49] * 1e3, cut[98] * 1e3


def _ratio(latencies: dict[str, tuple[float, float]], which: int) -> float:
    return latencies["hangs"][which] / latencies["answers"][which]


def _settings(endpoint: str, folder: Path, **more: object) -> Settings:
    return Settings.model_validate({"otlp_endpoint": endpoint, "spool_dir": folder, **more})


if __name__ == "__main__":
    main()
