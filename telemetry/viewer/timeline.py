"""A trace as rows: a tree, and where each span lies in time."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from telemetry.viewer.observation import Observation, Trace

WIDTH = 1000


@dataclass(frozen=True)
class Awaited:
    """A span that others name as their parent and that has not come: nothing is known of it but that it began."""

    id: str
    start: int


@dataclass(frozen=True)
class Row:
    """One observation, None where it has not come: how deep it lies, and its bar out of `WIDTH`."""

    observation: Observation | None
    depth: int
    x: float
    width: float


def rows(trace: Trace) -> list[Row]:
    """Return every observation and every awaited one once, parents before children, siblings by start."""
    start, end = trace.start, trace.end
    return [_row(each, depth, start, end) for each, depth in _walk(trace.observations)]


def _row(each: Observation | Awaited, depth: int, start: int, end: int) -> Row:
    scale = WIDTH / max(end - start, 1)
    seen = each if isinstance(each, Observation) else None
    until = seen.span.end if seen else end
    return Row(seen, depth, (_start(each) - start) * scale, max(until - _start(each), 0) * scale)


def _start(each: Observation | Awaited) -> int:
    return each.start if isinstance(each, Awaited) else each.span.start


def _walk(observations: Sequence[Observation]) -> Iterator[tuple[Observation | Awaited, int]]:
    known: set[str | None] = {None, *(each.id for each in observations)}
    children: dict[str | None, list[Observation]] = defaultdict(list)
    for each in observations:
        children[each.span.parent_id].append(each)
    awaited = [
        Awaited(parent, below[0].span.start) for parent, below in children.items() if parent and parent not in known
    ]
    seen: set[str] = set()
    # Spans that are each other's parents hang below no root: they follow the others.
    for start in (*sorted([*children[None], *awaited], key=_start), *observations):
        yield from _below(start, children, seen)


def _below(
    start: Observation | Awaited, children: dict[str | None, list[Observation]], seen: set[str]
) -> Iterator[tuple[Observation | Awaited, int]]:
    waiting: list[tuple[Observation | Awaited, int]] = [(start, 0)]
    while waiting:
        each, depth = waiting.pop()
        if each.id in seen:
            continue
        seen.add(each.id)
        yield each, depth
        waiting.extend((child, depth + 1) for child in reversed(children[each.id]))
