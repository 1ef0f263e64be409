"""Small plots of many traces: bars, and the same figures as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles

from telemetry.viewer.summary import TraceSummary

WIDTH, HEIGHT = 300, 40
FEWEST = 12


@dataclass(frozen=True)
class Bar:
    """One trace's bar, in the units of the plot; heights on a square-root scale, so that small ones stay visible."""

    x: float
    width: float
    height: float
    failed: bool


@dataclass(frozen=True)
class Plot:
    """A plot: its title, its bars from the earliest trace to the latest, and its summary."""

    title: str
    bars: Sequence[Bar]
    words: str


def plots(traces: Sequence[TraceSummary]) -> list[Plot]:
    """Return latency, first token, tokens and errors of traces that are in order of time."""
    return [
        _plot("Latency", traces, [trace.latency for trace in traces], _times),
        _plot("First token", traces, [trace.first_token for trace in traces], _times),
        _plot("Tokens", traces, [trace.tokens or None for trace in traces], _counts),
        _plot("Errors", traces, [trace.errors or None for trace in traces], partial(_share, of=len(traces))),
    ]


def duration(seconds: float | None) -> str:
    """Return a duration in a readable form."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def money(dollars: float | None) -> str:
    """Return US dollars with all significant digits, at least two."""
    if dollars is None:
        return ""
    if 0 < dollars < 0.000001:
        return "< $0.000001"
    whole, _, rest = f"{dollars:,.2f}".partition(".") if dollars >= 1 else f"{dollars:.6f}".partition(".")
    return f"${whole}.{rest.rstrip('0').ljust(2, '0')}"


def _plot(
    title: str, traces: Sequence[TraceSummary], values: Sequence[float | None], say: Callable[[Sequence[float]], str]
) -> Plot:
    known = [value for value in values if value is not None]
    slot = WIDTH / max(len(values), FEWEST)
    most = max(known, default=0) or 1
    bars = [
        Bar(round(number * slot, 2), round(slot * 0.75, 2), _height(value / most), trace.errors > 0)
        for number, (trace, value) in enumerate(zip(traces, values, strict=True))
        if value is not None
    ]
    return Plot(title, bars, say(known))


def _height(share: float) -> float:
    return round(max(share**0.5 * HEIGHT, 1), 2)


def _times(values: Sequence[float]) -> str:
    if len(values) < 2:
        return duration(values[0]) if values else "none"
    slow = quantiles(values, n=20, method="inclusive")[-1]
    return f"median {duration(median(values))}, p95 {duration(slow)}, most {duration(max(values))}"


def _counts(values: Sequence[float]) -> str:
    return f"median {median(values):,.0f}, most {max(values):,.0f}, {sum(values):,.0f} in all" if values else "none"


def _share(values: Sequence[float], of: int) -> str:
    return f"in {len(values)} of {of}"
