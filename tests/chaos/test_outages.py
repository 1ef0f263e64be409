"""The database is stopped, hangs, is cut off or locked under users and background runs."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.outages import run_fault

Figures = dict[str, Any]
MATRIX = [
    (fault, seconds, replicas)
    for fault in ("stopped", "hung", "cut")
    for seconds in (8, 60, 140)
    for replicas in (1, 3)
]


@pytest.mark.chaos
@pytest.mark.parametrize(("fault", "seconds", "replicas"), [*MATRIX, ("locked", 8, 1), ("locked", 20, 1)])
def test_nothing_is_lost(fault: str, seconds: int, replicas: int, tmp_path: Path, figures: Figures) -> None:
    """Client, history and trace say the same of every turn, no run fails for it, and no turn stays unfinished."""
    figures |= run_fault(fault, seconds, replicas, tmp_path)
    log = figures.pop("log")

    assert (figures["differing"], figures["doubled"], figures["stuck"], figures["lost"]) == ([], [], [], 0)
    assert (figures["runs"], figures["attempts"]) == ({"completed": 20}, {1: 20})
    assert (log.count("cannot be used: "), log.count("can be used again"), "Traceback" in log) == (
        replicas,
        replicas,
        False,
    )
