"""The overview of a period: turns and failures, latency, cost, models, tools, versions, users and scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from telemetry.viewer.figures import HOUR_S, Period, merged
from telemetry.viewer.plots import duration, money
from telemetry.viewer.summary import SINCE, TraceFilters

# The length of a bar for each period; without a period, a bar is a day.
BUCKETS_S = {"1h": 300, "24h": HOUR_S, "7d": 6 * HOUR_S, "": 24 * HOUR_S}
# Of a long period, only the last bars are shown.
MAX_BARS = 92
HEIGHT = 60
SLOT = 10


@dataclass(frozen=True)
class ScoreFigures:
    """The scores of one name: how many, how many are above zero, and their mean."""

    name: str
    count: int
    positive: int
    mean: float


@dataclass(frozen=True)
class TimeBar:
    """One bar: its height, the height of its failed part, what it says, and a link to the turns behind it."""

    x: int
    height: float
    failed_height: float
    label: str
    link: str


@dataclass(frozen=True)
class Chart:
    """The bars of one figure over time, and how the list behind it is sorted."""

    title: str
    about: str
    sort: str
    bars: Sequence[TimeBar]


def first_second(since: str, now: float) -> int:
    """Return when the period begins, in seconds since 1970: with a whole bar, or at 0 without a period."""
    size = 300 if since == "1h" else HOUR_S
    return int(now - SINCE[since]) // size * size if since else 0


def charts(buckets: Mapping[int, Period], since: str) -> list[Chart]:
    """Return the figures over time, with a bar for each part of the period from the first turn to the last."""
    size = BUCKETS_S[since]
    turned = [number for number, bucket in buckets.items() if bucket.turns]
    if not turned:
        return []
    last = max(turned)
    shown = {number: buckets.get(number, Period()) for number in range(max(min(turned), last - MAX_BARS + 1), last + 1)}

    def chart(
        title: str,
        about: str,
        sort: str,
        value: Callable[[Period], float | None],
        say: Callable[[Period], str],
        failed: Callable[[Period], int] = lambda _: 0,
    ) -> Chart:
        most = max((value(bucket) or 0 for bucket in shown.values()), default=0) or 1
        bars = [
            TimeBar(
                at * SLOT,
                round((value(bucket) or 0) * HEIGHT / most, 2),
                round(failed(bucket) * HEIGHT / most, 2),
                f"{_moment(number * size):%Y-%m-%d %H:%M} UTC: {say(bucket)}",
                TraceFilters(sort=sort).link(**_bounds(number * size, size)),
            )
            for at, (number, bucket) in enumerate(shown.items())
            if value(bucket) is not None
        ]
        return Chart(title, about, sort, bars)

    begins = f"{_moment(min(shown) * size):%Y-%m-%d %H:%M}"
    return [
        chart(
            "Turns",
            f"from {begins} UTC on, failed ones red; a bar opens the list behind it",
            "",
            lambda bucket: bucket.turns or None,
            lambda bucket: f"{bucket.turns} turns, {bucket.failed} failed",
            lambda bucket: bucket.failed,
        ),
        chart("Latency", "p95 of each", "latency", lambda each: _p95(each.latency), lambda each: spread(each.latency)),
        chart(
            "First token",
            "p95 of each",
            "first_token",
            lambda bucket: _p95(bucket.first_token),
            lambda bucket: spread(bucket.first_token),
        ),
        chart(
            "Cost",
            "of all turns of each",
            "cost",
            lambda bucket: bucket.cost,
            lambda bucket: f"{money(bucket.cost)}, {bucket.tokens:,} tokens",
        ),
    ]


def grouped(hours: Mapping[int, Period], since: str) -> dict[int, Period]:
    """Return hours as the buckets of the bars."""
    size = BUCKETS_S[since] // HOUR_S
    if size == 1:
        return dict(hours)
    parts: dict[int, list[Period]] = {}
    for hour, period in hours.items():
        parts.setdefault(hour // size, []).append(period)
    return {number: merged(each) for number, each in parts.items()}


def spread(figures: Mapping[str, float] | None) -> str:
    """Return percentiles as a line."""
    return ", ".join(f"{name} {duration(value)}" for name, value in (figures or {}).items()) or "none"


def start_link(start: int) -> dict[str, str]:
    """Return the filter of a list that begins there, nothing for all times."""
    return {"from": f"{_moment(start):%Y-%m-%dT%H:%M}"} if start else {}


def _p95(figures: Mapping[str, float] | None) -> float | None:
    return figures["p95"] if figures else None


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _bounds(start: int, size: int) -> dict[str, str]:
    begin, end = _moment(start), _moment(start + size)
    return {"from": f"{begin:%Y-%m-%dT%H:%M}", "to": f"{end:%Y-%m-%dT%H:%M}"}
