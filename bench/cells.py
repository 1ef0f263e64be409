"""What is measured: the cells, and who takes part in each."""

from dataclasses import dataclass
from itertools import product

from bench.tracing import OURS, WHOLE

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
    """One thing that every variant does, in a process of its own."""

    mode: str
    history: int = 0
    concurrency: int = 1
    checkpointer: bool = False
    rounds: int = 5
    """How often it is run at most, each time in a round of all cells and variants."""
    seconds: float = 1.0
    """How much CPU time the measured part takes at least, or how long it runs where it is paced."""

    @property
    def is_plain(self) -> bool:
        """Whether it is one of those that all variants are compared by."""
        return self.mode in MODES and self.concurrency == 1 and not self.checkpointer

    @property
    def name(self) -> str:
        """How a person calls it."""
        if self.mode not in MODES:
            return self.mode
        how = f"{self.mode} {self.history}"
        return how + f", {self.concurrency} at once" * (self.concurrency > 1) + ", saved" * self.checkpointer


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
    """Return whether the variant is measured there."""
    if variant == WHOLE:
        return cell.is_plain and cell.history == max(HISTORIES)
    if variant in ("untraced", *OURS):
        return cell.mode not in ("paced", "saturated") or variant in ("untraced", "default", "recorder")
    return cell.is_plain or (cell.mode in WEB and variant == "openinference")
