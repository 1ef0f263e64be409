"""Run the cells in rounds, each variant once per round, in a fresh process with an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.matrix import PEERS, Cell, takes_part
from bench.variants import SETTINGS

Sample = dict[str, Any]

ROOT = Path(__file__).parent.parent
PINS = ROOT / "bench" / "peers"
ENVIRONMENTS = ROOT / ".bench"
TIMEOUT_S = 180


class CellError(RuntimeError):
    """A variant cannot be measured."""


@dataclass(frozen=True)
class Plan:
    """The cells and variants to run, and the number of rounds."""

    cells: Sequence[Cell]
    variants: Sequence[str]
    rounds: int
    peer_rounds: int


@dataclass
class Measured:
    """One sample per round for each variant in each cell, and the reasons why some variants have none."""

    samples: defaultdict[tuple[Cell, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, cell: Cell, variant: str) -> list[Sample]:
        """Return the samples, in the order of the rounds."""
        return self.samples.get((cell, variant), [])


def measure(plan: Plan, endpoint: str) -> Measured:
    """Return the samples of all rounds, or of those before Ctrl-C; note why a variant is left out."""
    measured = Measured()
    try:
        for number in range(plan.rounds):
            for cell in (each for each in plan.cells if number < each.rounds):
                print(f"round {number + 1} of {plan.rounds}: {cell.name}", file=sys.stderr, flush=True)
                _round(measured, plan, number, cell, endpoint)
    except KeyboardInterrupt:
        print("stopped: the figures are those of the rounds so far", file=sys.stderr)
    return measured


def _round(measured: Measured, plan: Plan, number: int, cell: Cell, endpoint: str) -> None:
    names = [name for name in plan.variants if takes_part(name, cell) and _is_measured(name, number, plan)]
    for name in ["untraced", *_rotated(names, number)]:
        if name not in measured.missing:
            _sample(measured, cell, name, endpoint)


def _sample(measured: Measured, cell: Cell, variant: str, endpoint: str) -> None:
    try:
        measured.samples[cell, variant].append(run(variant, cell, endpoint))
    except CellError as error:
        if variant == "untraced":
            raise
        measured.missing[variant] = f"{cell.name}: {error}"
        print(f"  {variant} is left out: {error}", file=sys.stderr, flush=True)


def _is_measured(variant: str, number: int, plan: Plan) -> bool:
    return number < plan.peer_rounds or variant not in PEERS


def _rotated(names: Sequence[str], by: int) -> list[str]:
    """Return the names, rotated by this number, so that none always runs first."""
    start = by % max(len(names), 1)
    return [*names[start:], *names[:start]]


def run(variant: str, cell: Cell, endpoint: str) -> dict[str, Any]:
    """Return the figures of this variant in this cell; raise `CellError` with the reason if there are none."""
    python = sys.executable if variant in ("untraced", *SETTINGS) else str(interpreter_of(variant))
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
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)  # noqa: S603 - our own module
        except subprocess.TimeoutExpired:
            raise CellError(f"took longer than {TIMEOUT_S} s") from None
        if done.returncode:
            raise CellError((done.stderr.strip().splitlines() or ["ended without an error message"])[-1])
        return json.loads(Path(folder, "figures.json").read_text())


def interpreter_of(peer: str) -> Path:
    """Return the interpreter of a tracer's own environment; uv creates it from the pins in `bench/peers`."""
    pins, folder = (PINS / f"{peer}.txt").read_text(), ENVIRONMENTS / peer
    python, installed = folder / "bin" / "python", folder / "pins.txt"
    if installed.exists() and installed.read_text() == pins:
        return python
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--quiet", "--python", str(python), "-r", str(PINS / f"{peer}.txt"))
    installed.write_text(pins)
    return python


def _uv(*arguments: str) -> None:
    uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    done = subprocess.run([uv, *arguments], capture_output=True, text=True)  # noqa: S603 - our own arguments
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise CellError(f"uv {arguments[0]} ended with {done.returncode}")
