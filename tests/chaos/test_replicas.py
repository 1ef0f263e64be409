"""Replicas on one Postgres, behind nginx, are killed under users who stream."""

from pathlib import Path

import pytest

from tests.chaos.replicas import run_replicas
from tests.figures import Figures


@pytest.mark.parametrize(
    ("seconds", "users"), [pytest.param(20, 8, id="short"), pytest.param(300, 30, marks=pytest.mark.chaos, id="long")]
)
def test_replicas_are_killed(seconds: float, users: int, tmp_path: Path, figures: Figures) -> None:
    """Every stream is rejoined to its end, and no message of it is lost, doubled, or another turn's."""
    measured, found, wrong, log = run_replicas(seconds, tmp_path, users=users)
    figures.update(measured)

    assert (wrong, found.differing, found.threads, found.doubled, found.stuck) == ([], [], [], [], [])
    assert "Traceback" not in log
    assert measured["turns"] > users
