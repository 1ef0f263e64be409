"""A trace as rows: its tree, and the position of each span in time."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from telemetry.viewer.observation import SpanSummary

WIDTH = 1000
# The rows of `Essentials`: agents, models, tools, retrievals and errors.
ESSENTIAL = {"AGENT", "GENERATION", "TOOL", "RETRIEVER", "EMBEDDING", "GUARDRAIL"}
# So many equal siblings one after the other are one row.
FEWEST_EQUAL = 4


@dataclass(frozen=True)
class MissingSpan:
    """A span that is the parent of others and has not arrived: it is only known to have started."""

    id: str
    start: int


@dataclass(frozen=True)
class Axis:
    """The part of a trace's time that is shown, in Unix nanoseconds."""

    start: int
    end: int

    def place(self, start: int, end: int) -> tuple[float, float]:
        """Return where a bar begins and how wide it is, out of `WIDTH`; it ends at the borders."""
        scale = WIDTH / max(self.end - self.start, 1)
        left, right = (min(max(at - self.start, 0) * scale, WIDTH) for at in (start, max(start, end)))
        return left, right - left

    @property
    def ticks(self) -> list[float]:
        """The seconds since the start of the part, at its quarters."""
        return [(self.end - self.start) * quarter / 4e9 for quarter in range(5)]


class TreeRow(NamedTuple):
    """One span, None if it has not arrived, its depth, the number of rows below, its bar out of `WIDTH`.

    `siblings` is how many equal ones one after the other it stands for, and `seconds` their durations together.
    """

    span: SpanSummary | None
    depth: int
    below: int
    x: float
    width: float
    siblings: int = 1
    seconds: float = 0.0
    is_critical: bool = False


class Tree(Sequence[TreeRow]):
    """The rows of a tree; a page that has only some of them makes only these."""

    def __init__(
        self, groups: Sequence[tuple[Sequence[SpanSummary | MissingSpan], int]], axis: Axis, critical: Collection[str]
    ) -> None:
        self._groups, self._axis, self._critical = groups, axis, critical
        self._below = _below_each([depth for _, depth in groups])

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, at: int) -> TreeRow: ...
    @overload
    def __getitem__(self, at: slice) -> list[TreeRow]: ...
    def __getitem__(self, at: int | slice) -> TreeRow | list[TreeRow]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        group, depth = self._groups[at]
        return _tree_row(group, depth, self._below[at], self._axis, self._critical)

    def place_of(self, span_id: str) -> int:
        """Return the number of the row of a span, 0 if it has none."""
        return next((at for at, (group, _) in enumerate(self._groups) if group[0].id == span_id), 0)


def tree_rows(
    spans: Sequence[SpanSummary],
    *,
    essentials: bool = False,
    found: Collection[str] | None = None,
    axis: Axis | None = None,
    unfolded: str = "",
    chosen: str = "",
    critical: Collection[str] = (),
) -> Tree:
    """Return every span and every missing one once, parents before children, siblings by start.

    With `essentials` only agents, models, tools and errors remain, and with `found` only those with these ids; a row is
    below its nearest remaining ancestor. Equal siblings one after the other are one row, unless it is `unfolded` or the
    `chosen` one is among them. The spans of these `critical` ids are marked.
    """
    rows = [*_walk(spans)]
    if essentials:
        rows = _left(rows, lambda each: each.type in ESSENTIAL or each.level == "ERROR")
    if found is not None:
        rows = _left(rows, lambda each: each.id in found)
    return Tree(_grouped(rows, {unfolded, chosen}), axis or whole(spans), critical)


def whole(spans: Sequence[SpanSummary]) -> Axis:
    """Return the time of all these spans."""
    return Axis(min(each.start for each in spans), max(each.end for each in spans))


def critical_path(spans: Sequence[SpanSummary]) -> list[tuple[SpanSummary, int]]:
    """Return the spans that the trace waited for, each with the time until which it did.

    From the end of a span back, these are the child that ended last, then the one that ended last before that began,
    and so on. Whatever else ran at the same time could have taken longer without the trace taking longer. A span ends
    with the last one below it: the request of a stream ends when the stream begins. Of two at the same time, a model, a
    tool or another span with a kind counts before a plain one, such as that of the stream.
    """
    children: dict[str | None, list[SpanSummary]] = defaultdict(list)
    for each in spans:
        children[each.parent_id].append(each)
    ends = _ends(spans)
    found: list[tuple[SpanSummary, int]] = []
    seen: set[str] = set()
    waiting = [(root, whole(spans).end) for root in children[None][:1]]
    while waiting:
        each, end = waiting.pop()
        if each.id in seen:
            continue
        seen.add(each.id)
        found.append((each, end))
        taken: list[tuple[int, int]] = []
        for child in sorted(children[each.id], key=lambda child: (child.type == "SPAN", -ends[child.id])):
            child_start, child_end = child.start, min(ends[child.id], end)
            # Of those that are taken, the last one that begins before this one ends.
            before = bisect_left(taken, (child_end,)) - 1
            is_free = before < 0 or taken[before][1] <= child_start
            if each.start <= child_start < child_end and is_free:
                waiting.append((child, child_end))
                taken.insert(before + 1, (child_start, child_end))
    return found


def _ends(spans: Sequence[SpanSummary]) -> dict[str, int]:
    """Return by id when each span and everything below it has ended."""
    ends = {each.id: each.end for each in spans}
    parents = {each.id: each.parent_id for each in spans}
    for each in spans:
        above, seen = parents[each.id], {each.id}
        while above in ends and above not in seen and ends[above] < each.end:
            ends[above] = each.end
            seen.add(above)
            above = parents[above]
    return ends


def waited_for(path: Sequence[tuple[SpanSummary, int]]) -> list[tuple[str, float]]:
    """Return what a trace spent its time on, the longest first: names on its critical path and their own seconds."""
    inner: dict[str | None, int] = defaultdict(int)
    for each, end in path:
        inner[each.parent_id] += end - each.start
    own: dict[str, float] = defaultdict(float)
    for each, end in path:
        own[each.name] += max(end - each.start - inner[each.id], 0) / 1e9
    return sorted(own.items(), key=lambda pair: -pair[1])


def _grouped(
    rows: Sequence[tuple[SpanSummary | MissingSpan, int]], shown: set[str]
) -> list[tuple[list[SpanSummary | MissingSpan], int]]:
    """Return the rows with equal siblings that have nothing below and follow each other as one."""
    groups: list[tuple[list[SpanSummary | MissingSpan], int]] = []
    at = 0
    while at < len(rows):
        depth = rows[at][1]
        end = at + 1
        while end < len(rows) and _are_equal(rows, at, end):
            end += 1
        # The last one may have rows below, and then stands by itself.
        if end < len(rows) and rows[end][1] > depth:
            end -= 1
        run = rows[at : max(end, at + 1)]
        if len(run) >= FEWEST_EQUAL and not shown & {one.id for one, _ in run}:
            groups.append(([one for one, _ in run], depth))
        else:
            groups += [([one], depth) for one, depth in run]
        at += len(run)
    return groups


def _are_equal(rows: Sequence[tuple[SpanSummary | MissingSpan, int]], one: int, other: int) -> bool:
    (first, depth), (second, second_depth) = rows[one], rows[other]
    return (
        isinstance(first, SpanSummary)
        and isinstance(second, SpanSummary)
        and depth == second_depth
        and first.parent_id == second.parent_id
        and (first.name, first.type, first.level) == (second.name, second.type, second.level)
    )


def _tree_row(
    group: Sequence[SpanSummary | MissingSpan], depth: int, below: int, axis: Axis, critical: Collection[str]
) -> TreeRow:
    each = group[0]
    if isinstance(each, MissingSpan):
        return TreeRow(None, depth, below, *axis.place(each.start, axis.end))
    spans = [one for one in group if isinstance(one, SpanSummary)]
    place = axis.place(each.start, max(one.end for one in spans))
    seconds = sum(one.latency for one in spans)
    return TreeRow(each, depth, below, *place, len(spans), seconds, any(one.id in critical for one in spans))


def _left(
    rows: Sequence[tuple[SpanSummary | MissingSpan, int]], wanted: Callable[[SpanSummary], bool]
) -> list[tuple[SpanSummary | MissingSpan, int]]:
    left: list[tuple[SpanSummary | MissingSpan, int]] = []
    above: list[tuple[int, int]] = []  # the depths, before and after, of the remaining ancestors
    for each, depth in rows:
        if isinstance(each, SpanSummary) and wanted(each):
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


def _walk(spans: Sequence[SpanSummary]) -> Iterator[tuple[SpanSummary | MissingSpan, int]]:
    known: set[str | None] = {None, *(each.id for each in spans)}
    children: dict[str | None, list[SpanSummary]] = defaultdict(list)
    for each in spans:
        children[each.parent_id].append(each)
    missing = [
        MissingSpan(parent, below[0].start) for parent, below in children.items() if parent and parent not in known
    ]
    seen: set[str] = set()
    # Spans that are each other's parents are below no root: they come after the others.
    for start in (*sorted([*children[None], *missing], key=lambda each: each.start), *spans):
        yield from _below(start, children, seen)


def _below(
    start: SpanSummary | MissingSpan, children: dict[str | None, list[SpanSummary]], seen: set[str]
) -> Iterator[tuple[SpanSummary | MissingSpan, int]]:
    waiting: list[tuple[SpanSummary | MissingSpan, int]] = [(start, 0)]
    while waiting:
        each, depth = waiting.pop()
        if each.id in seen:
            continue
        seen.add(each.id)
        yield each, depth
        waiting.extend((child, depth + 1) for child in reversed(children[each.id]))
