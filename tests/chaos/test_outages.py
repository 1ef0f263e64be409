"""The database is away, locked or full, or the process is killed, under users and background runs."""

from pathlib import Path

import pytest

from tests.chaos.outages import TOO_OFTEN, run_fault, run_kills
from tests.figures import Figures

MATRIX = [
    (fault, seconds, replicas)
    for fault in ("stopped", "hung", "cut")
    for seconds in (8, 60, 140)
    for replicas in (1, 3)
]
SQLITE = [(fault, seconds, 1) for fault in ("locked", "full") for seconds in (8, 20, 60)]


@pytest.mark.chaos
@pytest.mark.parametrize(("fault", "seconds", "replicas"), [*MATRIX, *SQLITE])
def test_nothing_is_lost(fault: str, seconds: int, replicas: int, tmp_path: Path, figures: Figures) -> None:
    """Client, history, thread and trace say the same of every turn, no run fails for it, no turn stays unfinished."""
    measured, found, runs, log = run_fault(fault, seconds, replicas, tmp_path)
    figures.update(measured)

    assert (found.differing, found.threads, found.doubled, found.stuck) == ([], [], [], [])
    assert {(run["status"], len(run["trace_ids"])) for run in runs} == {("completed", 1)}
    assert (figures["lost"], figures["doubled"], figures["stuck"]) == (0, 0, 0)
    assert "Traceback" not in log
    begins, ends = log.count("cannot be used: "), log.count("can be used again")
    # A busy machine may have further outages, and where a disk is full some writes still succeed.
    assert begins == ends >= (0 if fault == "full" else replicas)


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.chaos)])
def test_a_process_is_killed_again_and_again(kills: int, tmp_path: Path, figures: Figures) -> None:
    """After the next start all say the same of every turn, those that were cut as well, and every run ends."""
    measured, found, runs, log = run_kills(kills, tmp_path)
    figures.update(measured)

    assert (found.differing, found.threads, found.doubled, found.stuck) == ([], [], [], [])
    assert {run["status"] for run in runs if TOO_OFTEN not in (run["error"] or "")} == {"completed"}
    assert "Traceback" not in log
