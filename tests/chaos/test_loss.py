"""Backends that fail and processes that die: what the spool had counted as written arrives."""

import random
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.fleet import FAULTS, PATIENCE_S, Backend, Fleet, Worker
from tests.processes import until

KILLS = 8


@dataclass(frozen=True)
class Scale:
    """How long a fault lasts, and how many spans meet it."""

    fault_s: float
    spans: int
    size: int


SHORT = Scale(fault_s=0.6, spans=150, size=200)
FULL = Scale(fault_s=8, spans=2500, size=2000)
DOWN = Scale(fault_s=60, spans=12_000, size=500)


def full(fault: str) -> Scale:
    return DOWN if fault == "down" else FULL


def check(backend: Backend, workers: list[Worker], expected: list[str], figures: dict[str, Any], kills: int) -> None:
    """All that was expected has arrived, and no more requests came twice than processes were killed."""
    until(lambda: backend.has(expected), PATIENCE_S * 4, lambda: f"{len(set(expected) - backend.names.keys())} lost")
    for worker in workers:
        worker.stop()
    names = backend.names
    figures.update(
        written=len(expected),
        lost=len(set(expected) - names.keys()),
        twice=sum(n - 1 for n in names.values()),
        repeated_requests=backend.repeats(),
        requests=len(backend.requests),
    )
    assert figures["repeated_requests"] <= kills


def ride(fleet: Fleet, backend: Backend, fault: str, scale: Scale, figures: dict[str, Any]) -> None:
    worker = fleet.start(scale.spans, pace=scale.fault_s / scale.spans * 1.2, size=size_for(fault, scale))
    until(lambda: worker.committed > scale.spans // 10, PATIENCE_S)
    backend.fail(fault)
    time.sleep(scale.fault_s)
    backend.mend()
    until(worker.worked, PATIENCE_S * 4)
    check(backend, [worker], worker.names(scale.spans), figures, 0)


def kill(fleet: Fleet, backend: Backend, fault: str, scale: Scale, figures: dict[str, Any]) -> None:
    expected: list[str] = []
    for n in range(KILLS):
        worker = fleet.start(scale.spans, pace=0.002, size=size_for(fault, scale))
        if n == 1:
            backend.fail(fault)
        until(lambda worker=worker: worker.committed, PATIENCE_S)
        time.sleep(random.uniform(0, 1.5) * scale.fault_s / KILLS)
        worker.kill()
        expected += worker.names(worker.committed)
    backend.mend()
    check(backend, [fleet.start()], expected, figures, KILLS)


def terminate(fleet: Fleet, backend: Backend, fault: str, scale: Scale, figures: dict[str, Any]) -> None:
    worker = fleet.start(scale.spans, pace=0.001, size=size_for(fault, scale))
    until(lambda: worker.committed > scale.spans // 10, PATIENCE_S)
    backend.fail(fault)
    until(worker.worked, PATIENCE_S * 4)
    worker.stop()
    time.sleep(scale.fault_s / 10)
    backend.mend()
    check(backend, [fleet.start()], worker.names(scale.spans), figures, 1)


def size_for(fault: str, scale: Scale) -> int:
    return 20_000 if "MB" in fault and scale is SHORT else 5_000 if "MB" in fault else scale.size


def test_no_fault_loses_a_span(running: tuple[Fleet, Backend], figures: dict[str, Any]) -> None:
    """A process that outlives every fault in turn delivers each span, once."""
    fleet, backend = running
    worker = fleet.start(900, pace=0.005, size=10_000)
    for fault in FAULTS:
        until(lambda: backend.names, PATIENCE_S)
        backend.fail(fault)
        time.sleep(0.3)
        backend.mend()
        time.sleep(0.2)
    until(worker.worked, PATIENCE_S)
    check(backend, [worker], worker.names(900), figures, 0)


@pytest.mark.parametrize("fault", ["down", "500"])
def test_sigkills_lose_nothing_that_was_written(
    running: tuple[Fleet, Backend], fault: str, figures: dict[str, Any]
) -> None:
    """What eight killed processes had written arrives; twice only what was on its way at a kill."""
    kill(*running, fault, SHORT, figures)


@pytest.mark.parametrize("fault", ["down", "hang"])
def test_sigterm_loses_nothing(running: tuple[Fleet, Backend], fault: str, figures: dict[str, Any]) -> None:
    """A process that is asked to stop during a fault leaves all its spans to the next one."""
    terminate(*running, fault, SHORT, figures)


@pytest.mark.chaos
@pytest.mark.parametrize("end", [ride, kill, terminate])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_loss_matrix(running: tuple[Fleet, Backend], fault: str, end: Any, figures: dict[str, Any]) -> None:
    """Every fault at full length, with nothing else, with eight SIGKILLs, with SIGTERM."""
    end(*running, fault, full(fault), figures)
