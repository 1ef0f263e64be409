"""A trace as rows: its tree, and the position of each span in time."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from telemetry.viewer.observation import Observation, Trace, text

WIDTH = 1000
# The rows of `Essentials`: agents, models, tools, retrievals and errors.
ESSENTIAL = {"AGENT", "GENERATION", "TOOL", "RETRIEVER", "EMBEDDING", "GUARDRAIL"}


@dataclass(frozen=True)
class MissingSpan:
    """A span that is the parent of others and has not arrived: it is only known to have started."""

    id: str
    start: int


@dataclass(frozen=True)
class TreeRow:
    """One observation, None if it has not arrived, its depth, the number of rows below, its bar out of `WIDTH`."""

    observation: Observation | None
    depth: int
    below: int
    x: float
    width: float


def tree_rows(trace: Trace, *, essentials: bool = False, find: str = "") -> list[TreeRow]:
    """Return every observation and every missing one once, parents before children, siblings by start.

    With `essentials` only agents, models, tools and errors remain, with `find` only those with the words in their name,
    input, output or message; a row is below its nearest remaining ancestor.
    """
    found = [*_walk(trace.observations)]
    if essentials:
        found = _left(found, lambda each: each.type in ESSENTIAL or each.level == "ERROR")
    if words := find.lower().split():
        found = _left(found, lambda each: all(word in _searched(each) for word in words))
    below = _below_each([depth for _, depth in found])
    start, end = trace.start, trace.end
    return [_tree_row(each, depth, count, start, end) for (each, depth), count in zip(found, below, strict=True)]


def _tree_row(each: Observation | MissingSpan, depth: int, below: int, start: int, end: int) -> TreeRow:
    scale = WIDTH / max(end - start, 1)
    observation = each if isinstance(each, Observation) else None
    until = observation.span.end if observation else end
    return TreeRow(observation, depth, below, (_start(each) - start) * scale, max(until - _start(each), 0) * scale)


def _start(each: Observation | MissingSpan) -> int:
    return each.start if isinstance(each, MissingSpan) else each.span.start


def _searched(each: Observation) -> str:
    return "\n".join(text(part) for part in (each.span.name, each.input, each.output, each.message) if part).lower()


def _left(
    rows: Sequence[tuple[Observation | MissingSpan, int]], wanted: Callable[[Observation], bool]
) -> list[tuple[Observation | MissingSpan, int]]:
    left: list[tuple[Observation | MissingSpan, int]] = []
    above: list[tuple[int, int]] = []  # the depths, before and after, of the remaining ancestors
    for each, depth in rows:
        if isinstance(each, Observation) and wanted(each):
            while above and above[-1][0] >= depth:
                above.pop()
            above.append((depth, above[-1][1] + 1 if above else 0))
            left.append((each, above[-1][1]))
    return left


def _below_each(depths: Sequence[int]) -> list[int]:
    """Return for each row the number of rows below it in the tree."""
    counts = [0] * len(depths)
    waiting: list[int] = []
    for at, depth in enumerate([*depths, -1]):
        while waiting and depths[waiting[-1]] >= depth:
            row = waiting.pop()
            counts[row] = at - row - 1
        waiting.append(at)
    return counts


def _walk(observations: Sequence[Observation]) -> Iterator[tuple[Observation | MissingSpan, int]]:
    known: set[str | None] = {None, *(each.id for each in observations)}
    children: dict[str | None, list[Observation]] = defaultdict(list)
    for each in observations:
        children[each.span.parent_id].append(each)
    missing = [
        MissingSpan(parent, below[0].span.start) for parent, below in children.items() if parent and parent not in known
    ]
    seen: set[str] = set()
    # Spans that are each other's parents are below no root: they come after the others.
    for start in (*sorted([*children[None], *missing], key=_start), *observations):
        yield from _below(start, children, seen)


def _below(
    start: Observation | MissingSpan, children: dict[str | None, list[Observation]], seen: set[str]
) -> Iterator[tuple[Observation | MissingSpan, int]]:
    waiting: list[tuple[Observation | MissingSpan, int]] = [(start, 0)]
    while waiting:
        each, depth = waiting.pop()
        if each.id in seen:
            continue
        seen.add(each.id)
        yield each, depth
        waiting.extend((child, depth + 1) for child in reversed(children[each.id]))
