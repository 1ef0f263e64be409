"""A trace as rows: a tree, and where each span lies in time."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from telemetry.viewer.observation import Observation, Trace

WIDTH = 1000


@dataclass(frozen=True)
class Row:
    """One observation: how deep it lies, and its bar out of `WIDTH`."""

    observation: Observation
    depth: int
    x: float
    width: float
    orphan: bool


def rows(trace: Trace) -> list[Row]:
    """Return every observation once, parents before children, siblings by start."""
    span = max(trace.end - trace.start, 1)
    known = {each.id for each in trace.observations}
    return [
        Row(
            each,
            depth,
            (each.span.start - trace.start) / span * WIDTH,
            max(each.span.end - each.span.start, 0) / span * WIDTH,
            each.span.parent_id is not None and each.span.parent_id not in known,
        )
        for each, depth in _walk(trace.observations)
    ]


def _walk(observations: Sequence[Observation]) -> Iterator[tuple[Observation, int]]:
    known = {each.id for each in observations}
    children: dict[str | None, list[Observation]] = defaultdict(list)
    for each in observations:
        children[each.span.parent_id if each.span.parent_id in known else None].append(each)
    seen: set[str] = set()
    # Spans that are each other's parents hang below no root: they follow the others.
    for start in (*children[None], *observations):
        yield from _below(start, children, seen)


def _below(
    start: Observation, children: dict[str | None, list[Observation]], seen: set[str]
) -> Iterator[tuple[Observation, int]]:
    waiting = [(start, 0)]
    while waiting:
        each, depth = waiting.pop()
        if each.id in seen:
            continue
        seen.add(each.id)
        yield each, depth
        waiting.extend((child, depth + 1) for child in reversed(children[each.id]))
