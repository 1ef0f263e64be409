"""Endings, cancellations, time limits and locks, in processes that hardly get any CPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.processes import ROOT, bare

pytestmark = pytest.mark.chaos

BUSY = 4
# Below the busy processes: of one core, the tests get less than a tenth.
NICENESS = 5
TESTS = [
    "tests/telemetry/test_turn.py",
    "tests/telemetry/delivery/test_store.py",
    "tests/app/test_database_away.py",
    "tests/app/test_limits.py",
    "tests/app/database/test_postgres.py",
]


@pytest.fixture(scope="module")
def core() -> Iterator[int]:
    """A core that other processes keep busy."""
    core = max(os.sched_getaffinity(0))
    with ExitStack() as stack:
        for _ in range(BUSY):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
            os.sched_setaffinity(busy.pid, {core})
        yield core


@pytest.mark.parametrize("path", TESTS)
def test_a_starved_process_does_the_same(core: int, path: str) -> None:
    """What holds on an idle machine holds on a busy one: it takes longer, and nothing else changes."""
    command = ["taskset", "-c", str(core), "nice", "-n", str(NICENESS), sys.executable, "-m", "pytest", "-q", path]
    done = subprocess.run(command, cwd=ROOT, env=bare(), capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
