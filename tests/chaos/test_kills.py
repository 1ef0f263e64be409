"""SIGKILL at random moments, one process after the other on one folder."""

import random
import time
from typing import Any

import pytest

from tests.chaos.fleet import PATIENCE_S, Backend, Fleet
from tests.processes import until


@pytest.mark.parametrize("answer", [200, 503])
@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=pytest.mark.chaos)])
def test_what_the_watermark_says_arrives(
    running: tuple[Fleet, Backend], rounds: int, answer: int, figures: dict[str, Any]
) -> None:
    """Every span below the published watermark arrives whole; none twice but what was on its way at a kill."""
    fleet, backend = running
    if answer != 200:
        backend.fail(str(answer))
    expected: list[str] = []
    for _ in range(rounds):
        worker = fleet.start(1_000_000, pace=0.001, size=random.choice([50, 2_000, 50_000]))
        until(lambda worker=worker: worker.committed, PATIENCE_S)
        time.sleep(random.uniform(0, 0.15))
        worker.kill()
        expected += worker.names(worker.committed)
    backend.mend()
    fleet.start()
    until(lambda: backend.has(expected), PATIENCE_S * 4, lambda: f"{len(set(expected) - backend.names.keys())} lost")
    names = backend.names
    figures.update(written=len(expected), lost=len(set(expected) - names.keys()))
    figures.update(twice=names.total() - len(names), repeated_requests=backend.repeats(), torn=backend.torn())
    assert figures["torn"] == 0
    assert figures["repeated_requests"] <= (rounds if answer == 200 else 0)
