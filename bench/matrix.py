"""The cells that are measured, and the variants that take part in each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench.variants import OURS, WHOLE

HISTORIES = (2, 40, 200)
MODES = ("invoke", "stream")
PEERS = (
    "openinference",
    "langfuse",
    "langsmith",
    "logfire",
    "traceloop",
    "openlit",
    "phoenix",
    "mlflow",
    "opik",
)
WEB = ("sse", "httpx")


@dataclass(frozen=True)
class Cell:
    """One workload that every variant runs, in a process of its own."""

    mode: str
    history: int = 0
    concurrency: int = 1
    checkpointer: bool = False
    rounds: int = 5
    """The largest number of rounds that it takes part in."""
    seconds: float = 1.0
    """The least CPU time of the measured part, or how long a load runs."""

    @property
    def is_plain(self) -> bool:
        """Whether it compares all variants, including other tracers."""
        return self.mode in MODES and self.concurrency == 1 and not self.checkpointer

    @property
    def name(self) -> str:
        """Its name in the tables."""
        if self.mode not in MODES:
            return self.mode
        name = f"{self.mode} {self.history}"
        return name + f", {self.concurrency} at once" * (self.concurrency > 1) + ", saved" * self.checkpointer


PLAIN = [Cell(mode, history) for mode, history in product(MODES, HISTORIES)]
OTHERS = [
    Cell(mode, 40, concurrency, checkpointer, rounds=2)
    for mode, concurrency, checkpointer in product(MODES, (1, 32), (False, True))
    if concurrency > 1 or checkpointer
]
LOADS = [Cell("paced", 2, 32, rounds=4, seconds=8), Cell("saturated", 2, 32, rounds=4, seconds=6)]
GROUPS = {"turns": PLAIN, "web": [Cell(mode, rounds=4) for mode in WEB], "load": LOADS, "others": OTHERS}
SHORT = [Cell("stream", 40, seconds=0.6), Cell("invoke", 200, seconds=0.6)]


def takes_part(variant: str, cell: Cell) -> bool:
    """Return whether the variant is measured in this cell."""
    if variant == WHOLE:
        return cell.is_plain and cell.history == max(HISTORIES)
    if variant in ("untraced", *OURS):
        return cell.mode not in ("paced", "saturated") or variant in ("untraced", "default", "recorder")
    return cell.is_plain or (cell.mode in WEB and variant == "openinference")


def parse_cell(words: Sequence[str]) -> Cell:
    """Return the cell that these words describe, such as `mode=stream history=40 checkpointer=true`."""
    fields: dict[str, Any] = dict(word.split("=") for word in words)
    return Cell(fields.pop("mode"), **{name: json.loads(value) for name, value in fields.items()})
