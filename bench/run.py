"""Running cells: each in a fresh process, in an empty folder, with nothing of this machine's settings."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cells import Cell
from bench.environments import python_of
from bench.tracing import SETTINGS

ROOT = Path(__file__).parent.parent
SECONDS = 180


class CellError(RuntimeError):
    """A variant that could not be measured, and why."""


def run(variant: str, cell: Cell, endpoint: str) -> dict[str, Any]:
    """Return the figures of this variant in this cell."""
    python = sys.executable if variant in ("untraced", *SETTINGS) else str(python_of(variant))
    command = [python, "-m", "bench.child", variant, json.dumps(asdict(cell)), endpoint]
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "0",
            **SETTINGS.get(variant, {}),
        }
        try:
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS)  # noqa: S603 - ourselves
        except subprocess.TimeoutExpired:
            raise CellError(f"took longer than {SECONDS} s") from None
        if done.returncode:
            raise CellError((done.stderr.strip().splitlines() or ["ended without a word"])[-1])
        return json.loads(Path(folder, "figures.json").read_text())


def main(variant: str, *fields: str) -> None:
    """Print the figures of one cell: `python -m bench.run default mode=stream history=40`."""
    from bench.sink import sink

    with sink() as endpoint:
        for name in ("untraced", *variant.split(",")):
            print(name, json.dumps(run(name, cell_of(fields), endpoint)))


def cell_of(fields: Sequence[str]) -> Cell:
    """Return the cell that these words name, such as `mode=stream history=40 checkpointer=true`."""
    given: dict[str, Any] = dict(each.split("=") for each in fields)
    return Cell(given.pop("mode"), **{name: json.loads(value) for name, value in given.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
