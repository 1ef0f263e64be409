"""A traced program is the same program: what it returns, raises, logs, warns of, holds and leaves behind is equal.

Each program runs untraced and then in every way of being traced; see `programs.py` for what they do.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry.testing import Receiver
from tests.differential.programs import PROGRAMS
from tests.processes import ROOT, UNSET

WAYS = {
    "openinference": {},
    "recorder": {"TELEMETRY_LANGCHAIN": "recorder"},
    "sampled out": {"TELEMETRY_LANGCHAIN": "recorder", "LANGFUSE_SAMPLING_RATE": "0"},
    "metadata only": {"TELEMETRY_LANGCHAIN": "recorder", "TELEMETRY_CONTENT": "metadata-only"},
    "hidden": {"OPENINFERENCE_HIDE_INPUTS": "true", "OPENINFERENCE_HIDE_OUTPUTS": "true"},
    "backend down": {"TELEMETRY_LANGCHAIN": "recorder", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
}
Observed = dict[str, list[str]]
Run = Callable[[str | None], Observed]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """What each program does, in one of these ways; None is untraced. A way is run once."""
    known: dict[str | None, Observed] = {}
    with Receiver() as receiver:

        def of(way: str | None) -> Observed:
            if way not in known:
                endpoint = {} if way is None else {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
                known[way] = _run({**endpoint, **WAYS.get(way or "", {})}, tmp_path_factory.mktemp("spool"))
            return known[way]

        yield of


def _run(environ: dict[str, str], folder: Path) -> Observed:
    env = {**UNSET, "TELEMETRY_SPOOL_DIR": str(folder / "spool"), "PYTHONHASHSEED": "0", **environ}
    done = subprocess.run(
        [sys.executable, "-m", "tests.differential.run_all"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=660,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["failures"] == {}, done.stderr[-3000:]
    return found["programs"]


def test_there_are_programs_of_every_kind() -> None:
    """An empty table would prove nothing."""
    assert len(PROGRAMS) >= 80


def test_a_program_does_the_same_twice(run: Run, tmp_path: Path) -> None:
    """Untraced, two runs are equal: what differs in a traced one is then the tracing's."""
    assert _run({}, tmp_path) == run(None)


@pytest.mark.parametrize("way", WAYS)
def test_a_traced_program_is_the_same_program(run: Run, way: str) -> None:
    """Whatever the program, whichever way it is traced."""
    untraced, traced = run(None), run(way)

    assert {name: traced[name] for name in traced if traced[name] != untraced[name]} == {
        name: untraced[name] for name in untraced if traced[name] != untraced[name]
    }
