"""The service's spool with the built collector behind it, while backends, collector and processes fail."""

import random
import time
from pathlib import Path

import pytest

from tests.chaos.fleet import FAULTS, PATIENCE_S, Backend, fleet
from tests.collector.otelcol import Collector
from tests.processes import until

# The collector takes a 200 for a yes although the rest of the answer is missing; the service alone does not.
KNOWN = tuple(fault for fault in FAULTS if fault != "half an answer")
# What durable drops, because it has answered before it asks the backend.
REFUSALS = ("500", "401", "413 above 1 MB", "500 above 1 MB")
SURVIVABLE = {"stateless": KNOWN, "durable": tuple(fault for fault in KNOWN if fault not in REFUSALS)}
KILLS = 8


def through(collector: Collector) -> dict[str, str]:
    """What a worker needs to send to this collector; it gives up later than the collector does."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "10"}


def placed(config: str, backend: Backend, folder: Path) -> Collector:
    """A collector between the two, which does not wait longer for a backend that hangs than a test can."""
    return Collector(config, backend.endpoint, folder / "queue", overlay="exporters::otlp_http/backend::timeout: 1s")


def missing(backend: Backend, names: list[str]) -> str:
    return f"{len(set(names) - backend.names.keys())} lost"


@pytest.mark.parametrize("config", SURVIVABLE)
def test_no_fault_and_no_kill_of_the_collector_loses_a_span(config: str, tmp_path: Path) -> None:
    """One fault of the backend after the other and eight SIGKILLs of the collector: every span arrives."""
    with fleet(tmp_path) as (workers, backend), placed(config, backend, tmp_path) as collector:
        worker = workers.start(800, pace=0.008, size=5_000, env=through(collector))
        until(lambda: backend.names, PATIENCE_S)
        faults = SURVIVABLE[config]
        for number in range(max(KILLS, len(faults))):
            backend.fail(faults[number % len(faults)])
            time.sleep(0.3)
            if number < KILLS:
                collector.kill()
                collector.start()
            backend.mend()
            time.sleep(0.1)
        until(worker.worked, PATIENCE_S)
        names = worker.names(800)
        until(lambda: backend.has(names), 2 * PATIENCE_S, lambda: missing(backend, names))
        worker.stop()


@pytest.mark.parametrize("config", SURVIVABLE)
def test_service_and_collector_both_killed_lose_nothing(config: str, tmp_path: Path) -> None:
    """With the backend down, service and collector are killed eight times: what the service had written arrives."""
    expected: list[str] = []
    with fleet(tmp_path) as (workers, backend), placed(config, backend, tmp_path) as collector:
        backend.fail("down")
        for _ in range(KILLS):
            worker = workers.start(1_000, env=through(collector))
            until(lambda worker=worker: worker.committed, PATIENCE_S)
            time.sleep(random.uniform(0, 0.3))
            collector.kill()
            worker.kill()
            expected += worker.names(worker.committed)
            collector.start()
        backend.mend()
        workers.start(env=through(collector))
        until(lambda: backend.has(expected), 2 * PATIENCE_S, lambda: missing(backend, expected))
