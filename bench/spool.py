"""What the spool costs beside the stock batch processor, and how soon a span is on disk."""

import asyncio
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
from app.agents import load
from app.models.models import load_models
from bench.sink import sink
from telemetry import wire
from telemetry.delivery.outbox import Prepare
from telemetry.delivery.processor import SpoolProcessor
from telemetry.provider import Pipeline, activate, build_provider, deactivate
from telemetry.quiet import Quiet
from telemetry.settings import Settings

SPANS = 4_000
# Text of 2 KB, as much as a short model call carries.
ATTRIBUTES = {f"text.{n}": f"{n}: It was the best of times, it was the worst of times. " * 9 for n in range(4)}
SECONDS = 6.0
TURNS = 32
BUSY = 4


def main() -> None:
    """Print the tables."""
    with sink() as endpoint:
        print(f"\nEnding {SPANS} spans of 2 KB, 500 a second, to a backend that answers")
        print(f"{'processor':<34}{'on_end p50 us':>14}{'p99 us':>10}{'CPU us/span':>13}")
        for name, make in processors(endpoint).items():
            print(f"{name:<34}{ending(make)}")
        print("\nFrom the end of a span to the disk, ms")
        print(f"{'load':<34}{'spans':>8}{'p50':>10}{'p99':>10}{'max':>10}")
        for name, load_with in LOADS.items():
            print(f"{name:<34}{lag(endpoint, load_with)}")
        print("\nOne turn, ms")
        print(f"{'backend':<34}{'p50':>10}{'p99':>10}")
        latencies = {where: turn_latency(endpoint + path) for where, path in {"answers": "", "hangs": "/hang"}.items()}
        for where, (p50, p99) in latencies.items():
            print(f"{where:<34}{p50:>10.1f}{p99:>10.1f}")
        print(f"{'hung to healthy':<34}{_ratio(latencies, 0):>10.2f}{_ratio(latencies, 1):>10.2f}")


def processors(endpoint: str) -> dict[str, Callable[[Path], SpanProcessor]]:
    """Return what is compared, by name."""
    stages = wire.stages(Settings())
    prepare = partial(wire.prepare_all, stages=stages)

    def spool(prepare: Prepare, **more: object) -> Callable[[Path], SpanProcessor]:
        return lambda folder: SpoolProcessor(_settings(endpoint, folder, **more), prepare)

    return {
        "stock batch processor": lambda _: BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")),
        "spool, the SDK's encoding": spool(lambda spans: [encode_spans([span]).SerializeToString() for span in spans]),
        "spool, all stages": spool(prepare),
        "spool, all stages, write-through": spool(prepare, spool_write_through=True),
        "spool, all stages, fsync": spool(prepare, spool_fsync=True),
    }


def ending(make: Callable[[Path], SpanProcessor]) -> str:
    """Return what the ends of many spans took, and the CPU time of it all."""
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        processor = make(Path(folder))
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(_Timed(processor, taken))
        tracer = provider.get_tracer("bench")
        plain = _plain_cpu()
        began = time.process_time()
        for _ in range(SPANS):
            tracer.start_span("span", attributes=ATTRIBUTES).end()
            time.sleep(0.002)
        processor.force_flush()
        cpu = time.process_time() - began
        provider.shutdown()
    cut = quantiles(taken, n=100)
    return f"{median(taken) * 1e6:>14.1f}{cut[98] * 1e6:>10.0f}{(cpu - plain) / SPANS * 1e6:>13.0f}"


class _Timed(SpanProcessor):
    def __init__(self, then: SpanProcessor, taken: list[float]) -> None:
        self._then = then
        self._taken = taken

    def on_end(self, span: ReadableSpan) -> None:
        began = time.perf_counter()
        self._then.on_end(span)
        self._taken.append(time.perf_counter() - began)


def _plain_cpu() -> float:
    """Return the CPU time of the same loop where nothing becomes of the spans."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("bench")
    began = time.process_time()
    for _ in range(SPANS // 4):
        tracer.start_span("span", attributes=ATTRIBUTES).end()
        time.sleep(0.002)
    return (time.process_time() - began) * 4


@contextmanager
def tracing(endpoint: str) -> Iterator[SpoolProcessor]:
    """Trace what runs inside through a spool to this backend."""
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(endpoint, Path(folder))
        last = SpoolProcessor(settings, partial(wire.prepare_all, stages=wire.stages(settings)))
        provider = build_provider(settings, "bench", [last])
        activate(Pipeline(provider, Quiet(last), last), settings)
        try:
            yield last
        finally:
            deactivate()
            provider.shutdown()


def lag(endpoint: str, load_with: Callable[[], None]) -> str:
    """Return how long spans took to the disk under this load."""
    with tracing(endpoint) as last:
        load_with()
        last.force_flush()
        lags = list(last.outbox.lags)
    cut = quantiles(lags, n=100)
    return f"{len(lags):>8}{cut[49] * 1e3:>10.1f}{cut[98] * 1e3:>10.1f}{max(lags) * 1e3:>10.1f}"


def idle() -> None:
    """End a span now and then."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with telemetry.span("span"):
            pass
        time.sleep(0.02)


def turns() -> None:
    """Run so many turns at once, one after the other each."""
    asyncio.run(_turns(TURNS))


def busy() -> None:
    """End a span now and then while other threads never let go of the interpreter by themselves."""
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


LOADS: dict[str, Callable[[], None]] = {
    "idle": idle,
    f"{TURNS} turns at once": turns,
    f"beside {BUSY} busy threads": busy,
}


async def _turns(users: int) -> None:
    graph = load("chatbot", load_models("demo"), InMemorySaver())
    until = time.monotonic() + SECONDS

    async def user(number: int) -> None:
        turn = 0
        while time.monotonic() < until:
            turn += 1
            await _turn(graph, f"{number}-{turn}")

    await asyncio.gather(*map(user, range(users)))


async def _turn(graph: object, thread: str) -> None:
    with telemetry.scope(session_id=thread, user_id="ada", agent="chatbot"), telemetry.span("turn"):
        asked = {"messages": [HumanMessage("What is 12*34?")]}
        await graph.ainvoke(asked, {"configurable": {"thread_id": thread}})  # pyright: ignore[reportAttributeAccessIssue] - a compiled graph


def turn_latency(endpoint: str) -> tuple[float, float]:
    """Return the p50 and p99 of one turn after the other, in milliseconds."""
    taken: list[float] = []

    async def run() -> None:
        graph = load("chatbot", load_models("demo"), InMemorySaver())
        for number in range(300):
            began = time.perf_counter()
            await _turn(graph, str(number))
            taken.append(time.perf_counter() - began)

    with tracing(endpoint):
        asyncio.run(run())
    cut: Sequence[float] = quantiles(taken, n=100)
    return cut[49] * 1e3, cut[98] * 1e3


def _ratio(latencies: dict[str, tuple[float, float]], which: int) -> float:
    return latencies["hangs"][which] / latencies["answers"][which]


def _settings(endpoint: str, folder: Path, **more: object) -> Settings:
    return Settings.model_validate({"otlp_endpoint": endpoint, "spool_dir": folder, **more})


if __name__ == "__main__":
    main()
