"""Figures of a period: turns and failures, latency, models, tools and scores."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import quantiles

from telemetry.viewer.summary import TraceFilters

# The length of a bar for each period; without a period, a bar is a day.
BUCKETS_S = {"1h": 300, "24h": 3_600, "7d": 6 * 3_600, "": 86_400}
# Of a long period, only the last bars are shown.
MAX_BARS = 92
HEIGHT = 60
SLOT = 10


@dataclass(frozen=True)
class TurnFigures:
    """The figures of one turn: its start and duration in nanoseconds, its cost in US dollars."""

    start: int
    latency: int
    first_token: int | None
    tokens: int
    cost: float | None
    failed: bool


@dataclass(frozen=True)
class Usage:
    """The usage of a model or a tool: calls, tokens and failures."""

    name: str
    calls: int
    failed: int
    tokens: int
    cost: float | None


@dataclass(frozen=True)
class ScoreFigures:
    """The scores of one name: how many, how many are above zero, and their mean."""

    name: str
    count: int
    positive: int
    mean: float


@dataclass(frozen=True)
class Totals:
    """The totals of turns; percentiles in seconds, None without values."""

    turns: int
    failed: int
    tokens: int
    cost: float | None
    latency: dict[str, float] | None
    first_token: dict[str, float] | None


@dataclass(frozen=True)
class TimeBar:
    """One bar: the turns of its period, the failed ones as its lower part, and a link to their list."""

    at: datetime
    link: str
    x: int
    height: float
    failed_height: float
    totals: Totals


def totals(turns: Sequence[TurnFigures]) -> Totals:
    """Return the totals of turns."""
    costs = [turn.cost for turn in turns if turn.cost is not None]
    return Totals(
        len(turns),
        sum(turn.failed for turn in turns),
        sum(turn.tokens for turn in turns),
        sum(costs) if costs else None,
        _percentiles([turn.latency / 1e9 for turn in turns]),
        _percentiles([turn.first_token / 1e9 for turn in turns if turn.first_token is not None]),
    )


def bars(turns: Sequence[TurnFigures], filters: TraceFilters) -> list[TimeBar]:
    """Return a bar for each period from the first turn to the last, including empty ones."""
    size = BUCKETS_S[filters.since]
    grouped: dict[int, list[TurnFigures]] = defaultdict(list)
    for turn in turns:
        grouped[turn.start // 10**9 // size].append(turn)
    if not grouped:
        return []
    last = max(grouped)
    first = max(min(grouped), last - MAX_BARS + 1)
    most = max(len(group) for group in grouped.values())
    return [
        _bar(number, totals(grouped.get(bucket, [])), bucket * size, size, most, filters)
        for number, bucket in enumerate(range(first, last + 1))
    ]


def _bar(number: int, figures: Totals, start: int, size: int, most: int, filters: TraceFilters) -> TimeBar:
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (start, start + size))
    bounds = {"from": f"{begin:%Y-%m-%dT%H:%M}", "to": f"{end:%Y-%m-%dT%H:%M}"}
    scale = HEIGHT / most
    return TimeBar(
        begin,
        filters.link(since="", **bounds),
        number * SLOT,
        round(figures.turns * scale, 2),
        round(figures.failed * scale, 2),
        figures,
    )


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}
