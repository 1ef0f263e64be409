"""What programs say that take no arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, UNSET

PROGRAMS = {"app": "DATABASE_URL", "telemetry.viewer": "VIEWER_DB", "app.demo": "UI_PORT"}


def run(program: str, argument: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **UNSET, "AUTH_SECRET": "short"}
    command = [sys.executable, "-m", program, argument]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_says_how_it_is_set_up(program: str, tmp_path: Path) -> None:
    """`--help` names the variables that matter and where all stand, whatever they are set to, and starts nothing."""
    done = run(program, "--help", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m {program} ")
    assert f"  {PROGRAMS[program]} " in done.stdout
    assert "docs/settings.md" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", PROGRAMS)
def test_arguments_are_refused(program: str, tmp_path: Path) -> None:
    """An argument would have no effect: it is refused, and nothing starts."""
    done = run(program, "--port=1", tmp_path)

    assert done.returncode == 2
    assert "unrecognized arguments: --port=1" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_viewer_is_a_command_too(tmp_path: Path) -> None:
    """`python -m telemetry viewer` says of its settings what `python -m telemetry.viewer` says."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **UNSET}
    command = [sys.executable, "-m", "telemetry", "viewer", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m telemetry viewer ")
    alone = run("telemetry.viewer", "--help", tmp_path).stdout
    assert done.stdout.partition("\n")[2] == alone.partition("\n")[2]
