"""Measure a task and a heartbeat: CPU per call, recorded in memory and with tracing off, compared with a plain span."""

import time
from collections.abc import Callable
from contextlib import ExitStack

from telemetry import Task, pipeline
from telemetry.heartbeat import Heartbeat
from telemetry.settings import Settings
from telemetry.testing import recording

CALLS = 5_000


def main() -> None:
    """Print a table of CPU microseconds, and of the number of plain spans that cost the same."""
    print(f"{'':<44}{'traced us':>12}{'off us':>12}{'spans':>12}")
    measured(spans, traced=True)  # the first one warms up
    plain = measured(spans, traced=True)
    for name, call in ROWS.items():
        traced, off = measured(call, traced=True), measured(call, traced=False)
        print(f"{name:<44}{traced:>12.1f}{off:>12.1f}{traced / plain:>12.2f}")


def measured(call: Callable[[int], None], *, traced: bool) -> float:
    """Return the microseconds of one call."""
    with ExitStack() as stack:
        if traced:
            stack.enter_context(recording(Settings.model_construct()))
        began = time.process_time()
        call(CALLS)
        return (time.process_time() - began) / CALLS * 1e6


def spans(calls: int) -> None:
    """Create spans with the API alone, for comparison."""
    tracer = pipeline.tracer()
    for number in range(calls):
        tracer.start_span("bench", attributes={"number": number}).end()


def whole_tasks(calls: int) -> None:
    """Start and end tasks."""
    for _ in range(calls):
        with Task("bench"):
            pass


def written(calls: int) -> None:
    """Write each change as a span."""
    with Task("bench", interval_s=0) as task:
        for number in range(calls):
            task.write_data(done=number)


def throttled(calls: int) -> None:
    """Change more often than spans are written."""
    with Task("bench", interval_s=3600) as task:
        for number in range(calls):
            task.write_data(done=number)


def heartbeats(calls: int) -> None:
    """Write heartbeats without a pause."""
    heartbeat = Heartbeat(0)
    for number in range(calls):
        heartbeat.beat("running", events=number)


ROWS = {
    "a plain span": spans,
    "a task, begun and ended (3 spans)": whole_tasks,
    "write_data, told (1 span)": written,
    "write_data, within the interval": throttled,
    "a heartbeat (1 span)": heartbeats,
}

if __name__ == "__main__":
    main()
