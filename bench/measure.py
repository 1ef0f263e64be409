"""Rounds: every cell once by every variant, side by side, then again."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.cells import PEERS, Cell, takes_part
from bench.environments import MissingError
from bench.run import CellError, run

Sample = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is run, and how often."""

    cells: Sequence[Cell]
    variants: Sequence[str]
    rounds: int
    peer_rounds: int


@dataclass
class Measured:
    """The samples of each variant in each cell, a round each, and why some have none."""

    samples: defaultdict[tuple[Cell, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, cell: Cell, variant: str) -> list[Sample]:
        """Return the samples, in the order of the rounds."""
        return self.samples.get((cell, variant), [])


def measure(plan: Plan, endpoint: str) -> Measured:
    """Return what all rounds gave, or those until Ctrl-C; a variant that fails is left out, with its reason."""
    measured = Measured()
    try:
        for number in range(plan.rounds):
            for cell in (each for each in plan.cells if number < each.rounds):
                print(f"round {number + 1} of {plan.rounds}: {cell.name}", file=sys.stderr, flush=True)
                _round(measured, plan, number, cell, endpoint)
    except KeyboardInterrupt:
        print("stopped: the figures are those of what was done", file=sys.stderr)
    return measured


def _round(measured: Measured, plan: Plan, number: int, cell: Cell, endpoint: str) -> None:
    taking = [name for name in plan.variants if takes_part(name, cell) and _again(name, number, plan)]
    for name in ["untraced", *_rotated(taking, number)]:
        if name not in measured.missing:
            _sample(measured, cell, name, endpoint)


def _sample(measured: Measured, cell: Cell, variant: str, endpoint: str) -> None:
    try:
        measured.samples[cell, variant].append(run(variant, cell, endpoint))
    except (CellError, MissingError) as error:
        if variant == "untraced":
            raise
        measured.missing[variant] = f"{cell.name}: {error}"
        print(f"  {variant} is left out: {error}", file=sys.stderr, flush=True)


def _again(variant: str, number: int, plan: Plan) -> bool:
    return number < plan.peer_rounds or variant not in PEERS


def _rotated(names: Sequence[str], by: int) -> list[str]:
    """Return them beginning elsewhere each time, so that nobody always runs first."""
    start = by % max(len(names), 1)
    return [*names[start:], *names[:start]]
