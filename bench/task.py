"""What a task and a heartbeat cost: CPU a call, traced into memory and with tracing off, beside a plain span."""

import time
from collections.abc import Callable
from contextlib import ExitStack

from telemetry import Task, provider
from telemetry.heartbeat import Heartbeat
from telemetry.settings import Settings
from telemetry.testing import recording

CALLS = 5_000


def main() -> None:
    """Print a table: microseconds of CPU, and how many plain spans that is."""
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
    """Make spans by the API alone, as a yardstick."""
    tracer = provider.tracer()
    for number in range(calls):
        tracer.start_span("bench", attributes={"number": number}).end()


def whole_tasks(calls: int) -> None:
    """Begin and end tasks."""
    for _ in range(calls):
        with Task("bench"):
            pass


def told(calls: int) -> None:
    """Tell each change."""
    with Task("bench", interval_s=0) as task:
        for number in range(calls):
            task.write_data(done=number)


def held_back(calls: int) -> None:
    """Change more often than is told."""
    with Task("bench", interval_s=3600) as task:
        for number in range(calls):
            task.write_data(done=number)


def beats(calls: int) -> None:
    """Show life without a pause."""
    signs = Heartbeat(0)
    for number in range(calls):
        signs.beat("running", events=number)


ROWS = {
    "a plain span": spans,
    "a task, begun and ended (3 spans)": whole_tasks,
    "write_data, told (1 span)": told,
    "write_data, within the interval": held_back,
    "a heartbeat (1 span)": beats,
}

if __name__ == "__main__":
    main()
