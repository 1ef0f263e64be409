"""The figures of turns, models and tools by the hour: what the overview adds up.

An hour is read from the file once, and again after a change; the rest of the page's work does not grow with the number
of traces.
"""

import sqlite3
import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from telemetry.moment import LAST_TIME
from telemetry.viewer.summary import SILENCE_S, state

HOUR_S = 3_600
# More changed hours than these are read in one go.
MANY = 24
NONE = LAST_TIME // HOUR_S
TURNS = """
SELECT start / :size, latency, first_token, tokens, cost, {state} IN ('failed', 'lost'),
    CASE WHEN pending THEN updated_at END
FROM traces WHERE turn AND start >= :start AND start < :end
"""
# By hour, kind and name: calls, failures, tokens, cost, nanoseconds, and those to the first token of how many.
USAGE = """
SELECT start / :size, 'model', coalesce(model, ''), count(*), sum(failed), sum(tokens), sum(cost), sum(end - start),
    sum(max(first_token - start, 0)), count(first_token)
FROM spans WHERE type = 'GENERATION' AND start >= :start AND start < :end GROUP BY 1, 3
UNION ALL
SELECT start / :size, 'tool', name, count(*), sum(failed), 0, NULL, sum(end - start), 0, 0
FROM spans WHERE type = 'TOOL' AND start >= :start AND start < :end GROUP BY 1, 3
UNION ALL
SELECT start / :size, 'user', user_id, count(*), sum({state} IN ('failed', 'lost')), sum(tokens), sum(cost),
    sum(latency), sum(first_token), count(first_token)
FROM traces WHERE turn AND user_id > '' AND start >= :start AND start < :end GROUP BY 1, 3
UNION ALL
SELECT start / :size, 'version', value, count(*), sum({state} IN ('failed', 'lost')), sum(tokens), sum(cost),
    sum(latency), sum(first_token), count(first_token)
FROM traces CROSS JOIN labels ON labels.trace = traces.id AND kind = 'version'
WHERE turn AND start >= :start AND start < :end GROUP BY 1, 3
"""


@dataclass
class Usage:
    """What one model, tool, user or version had: calls or turns, failures, tokens, cost, and nanoseconds."""

    calls: int = 0
    failed: int = 0
    tokens: int = 0
    cost: float | None = None
    time_ns: int = 0
    first_token_ns: int = 0
    first_tokens: int = 0

    def add(self, other: "Usage") -> None:
        """Add another one's."""
        self.calls += other.calls
        self.failed += other.failed
        self.tokens += other.tokens
        if other.cost is not None:
            self.cost = (self.cost or 0) + other.cost
        self.time_ns += other.time_ns
        self.first_token_ns += other.first_token_ns
        self.first_tokens += other.first_tokens

    @property
    def seconds(self) -> float:
        """The mean duration."""
        return self.time_ns / self.calls / 1e9

    @property
    def first_token(self) -> float | None:
        """The mean time to the first token, in seconds."""
        return self.first_token_ns / self.first_tokens / 1e9 if self.first_tokens else None


def _times() -> "array[int]":
    return array("q")


@dataclass
class Period:
    """The figures of a period; the latencies and first tokens of its turns in nanoseconds."""

    turns: int = 0
    failed: int = 0
    tokens: int = 0
    cost: float | None = None
    latencies: "array[int]" = field(default_factory=_times)
    first_tokens: "array[int]" = field(default_factory=_times)
    usage: dict[tuple[str, str], Usage] = field(default_factory=dict)
    # When a turn that runs now will count as ended, in seconds since 1970.
    valid_until: float = float("inf")

    @cached_property
    def latency(self) -> dict[str, float] | None:
        """The percentiles of the latencies in seconds."""
        return percentiles(self.latencies)

    @cached_property
    def first_token(self) -> dict[str, float] | None:
        """The percentiles of the times to the first token in seconds."""
        return percentiles(self.first_tokens)

    def of(self, kind: str, order: Literal["calls", "cost"] = "calls") -> list[tuple[str, Usage]]:
        """Return what each model, tool, user or version had, the most calls first, or what cost most."""
        found = [(name, usage) for (each, name), usage in self.usage.items() if each == kind]
        if order == "cost":
            return sorted(found, key=lambda pair: (-(pair[1].cost or 0), -pair[1].calls, pair[0]))
        return sorted(found, key=lambda pair: (-pair[1].calls, pair[0]))


def merged(periods: Iterable[Period]) -> Period:
    """Return the figures of several periods together."""
    whole = Period()
    for each in periods:
        whole.turns += each.turns
        whole.failed += each.failed
        whole.tokens += each.tokens
        if each.cost is not None:
            whole.cost = (whole.cost or 0) + each.cost
        whole.latencies.extend(each.latencies)
        whole.first_tokens.extend(each.first_tokens)
        for key, usage in each.usage.items():
            whole.usage.setdefault(key, Usage()).add(usage)
    return whole


def percentiles(nanoseconds: Sequence[int]) -> dict[str, float] | None:
    """Return the 50th, 95th and 99th percentile in seconds, None without values."""
    if not nanoseconds:
        return None
    values = sorted(nanoseconds)
    last = len(values) - 1
    return {f"p{share}": _at(values, share * last / 100) / 1e9 for share in (50, 95, 99)}


def _at(values: list[int], place: float) -> float:
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


def read_periods(db: sqlite3.Connection, size_s: int, start: int, end: int = LAST_TIME) -> dict[int, Period]:
    """Return the figures of the periods of this length in seconds that have any, by their number since 1970."""
    found: dict[int, Period] = defaultdict(Period)
    given = {"size": size_s * 10**9, "start": start, "end": end}
    now = time.time()
    for number, latency, first_token, tokens, cost, failed, updated_at in db.execute(
        TURNS.format(state=state(now)), given
    ):
        period = found[number]
        period.turns += 1
        period.failed += failed
        period.tokens += tokens
        if cost is not None:
            period.cost = (period.cost or 0) + cost
        period.latencies.append(latency)
        if first_token is not None:
            period.first_tokens.append(first_token)
        if updated_at is not None and updated_at > now - SILENCE_S:
            period.valid_until = min(period.valid_until, updated_at + SILENCE_S)
    for number, kind, name, *usage in db.execute(USAGE.format(state=state(now)), given):
        calls, failed, tokens, cost, *times = (value or 0 if at != 3 else value for at, value in enumerate(usage))
        found[number].usage[kind, name] = Usage(calls, failed, tokens, cost, *times)
    for period in found.values():
        # Sorted parts are sorted together in little time.
        period.latencies = array("q", sorted(period.latencies))
        period.first_tokens = array("q", sorted(period.first_tokens))
    return found


class Hours:
    """The figures of each hour, read when they are first wanted, and again after a change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hours: dict[int, Period] = {}
        self._first = NONE  # the earliest hour that was read; all later ones were
        self._version = 0

    def since(self, first: int, db: sqlite3.Connection, changed: Iterable[int], version: int) -> dict[int, Period]:
        """Return the hours from this one on that have figures.

        `changed` are those that were written to since, `version` is another one after another process has written.
        """
        with self._lock:
            now = time.time()
            stale = {hour for hour, period in self._hours.items() if period.valid_until <= now}
            stale |= {hour for hour in changed if hour >= self._first}
            if len(stale) > MANY or version != self._version:
                self._hours.clear()
                self._first, self._version, stale = NONE, version, set()
            for hour in stale:
                self._hours.pop(hour, None)
                self._hours |= self._read(db, hour, hour + 1)
            if first < self._first:
                self._hours |= self._read(db, first, self._first)
                self._first = first
            return {hour: period for hour, period in self._hours.items() if hour >= first}

    @staticmethod
    def _read(db: sqlite3.Connection, first: int, end: int) -> dict[int, Period]:
        size = HOUR_S * 10**9
        return read_periods(db, HOUR_S, first * size, min(end * size, LAST_TIME))
