"""SIGKILL at random moments, one process after the other on one folder."""

import random
import time
from typing import Any

import pytest

from tests.chaos.fleet import PATIENCE_S, Backend, Fleet
from tests.processes import until


@pytest.mark.parametrize("rounds", [12, pytest.param(200, marks=pytest.mark.chaos)])
def test_what_the_watermark_says_arrives(running: tuple[Fleet, Backend], rounds: int, figures: dict[str, Any]) -> None:
    """Every span below the published watermark arrives whole, and none twice but what was on its way at a kill."""
    fleet, backend = running
    expected: list[str] = []
    for _ in range(rounds):
        worker = fleet.start(1_000_000, pace=0.001, size=random.choice([50, 2_000, 50_000]))
        until(lambda worker=worker: worker.committed, PATIENCE_S)
        time.sleep(random.uniform(0, 0.15))
        worker.kill()
        expected += worker.names(worker.committed)
    fleet.start()
    until(lambda: backend.has(expected), PATIENCE_S, lambda: f"{len(set(expected) - backend.names.keys())} lost")
    names = backend.names
    figures.update(written=len(expected), lost=len(set(expected) - names.keys()))
    figures.update(twice=sum(n - 1 for n in names.values()), torn=backend.torn())
    figures.update(repeated_requests=backend.repeats())
    assert figures["torn"] == 0
    assert figures["repeated_requests"] <= rounds
