"""A trace as rows: its tree, and the position of each span in time."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from telemetry.viewer.observation import Observation, Trace, text

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


@dataclass(frozen=True)
class TreeRow:
    """One observation, None if it has not arrived, its depth, the number of rows below, its bar out of `WIDTH`.

    `siblings` is how many equal ones one after the other it stands for, and `seconds` their durations together.
    """

    observation: Observation | None
    depth: int
    below: int
    x: float
    width: float
    siblings: int = 1
    seconds: float = 0.0
    is_critical: bool = False


def tree_rows(
    trace: Trace,
    *,
    essentials: bool = False,
    find: str = "",
    axis: Axis | None = None,
    unfolded: str = "",
    chosen: str = "",
) -> list[TreeRow]:
    """Return every observation and every missing one once, parents before children, siblings by start.

    With `essentials` only agents, models, tools and errors remain, with `find` only those with the words in their name,
    input, output or message; a row is below its nearest remaining ancestor. Equal siblings one after the other are one
    row, unless it is `unfolded` or the `chosen` one is among them.
    """
    found = [*_walk(trace.observations)]
    if essentials:
        found = _left(found, lambda each: each.type in ESSENTIAL or each.level == "ERROR")
    if words := find.lower().split():
        found = _left(found, lambda each: all(word in _searched(each) for word in words))
    grouped = _grouped(found, {unfolded, chosen})
    below = _below_each([depth for _, depth in grouped])
    axis = axis or Axis(trace.start, trace.end)
    critical = {each.id for each, _ in critical_path(trace)}
    return [
        _tree_row(group, depth, count, axis, critical) for (group, depth), count in zip(grouped, below, strict=True)
    ]


def critical_path(trace: Trace) -> list[tuple[Observation, int]]:
    """Return the observations that the trace waited for, each with the time until which it did.

    From the end of a span back, these are the child that ended last, then the one that ended last before that began,
    and so on. Whatever else ran at the same time could have taken longer without the trace taking longer. A span ends
    with the last one below it: the request of a stream ends when the stream begins. Of two at the same time, a model, a
    tool or another observation with a kind counts before a plain span, such as that of the stream.
    """
    children: dict[str | None, list[Observation]] = defaultdict(list)
    for each in trace.observations:
        children[each.span.parent_id].append(each)
    ends = _ends(trace.observations)
    found: list[tuple[Observation, int]] = []
    seen: set[str] = set()
    waiting = [(trace.root, trace.end)] if trace.root else []
    while waiting:
        each, end = waiting.pop()
        if each.id in seen:
            continue
        seen.add(each.id)
        found.append((each, end))
        taken: list[tuple[int, int]] = []
        for child in sorted(children[each.id], key=lambda child: (child.type == "SPAN", -ends[child.id])):
            child_start, child_end = child.span.start, min(ends[child.id], end)
            # Of those that are taken, the last one that begins before this one ends.
            before = bisect_left(taken, (child_end,)) - 1
            is_free = before < 0 or taken[before][1] <= child_start
            if each.span.start <= child_start < child_end and is_free:
                waiting.append((child, child_end))
                taken.insert(before + 1, (child_start, child_end))
    return found


def _ends(observations: Sequence[Observation]) -> dict[str, int]:
    """Return by id when each observation and everything below it has ended."""
    ends = {each.id: each.span.end for each in observations}
    parents = {each.id: each.span.parent_id for each in observations}
    for each in observations:
        above, seen = parents[each.id], {each.id}
        while above in ends and above not in seen and ends[above] < each.span.end:
            ends[above] = each.span.end
            seen.add(above)
            above = parents[above]
    return ends


def waited_for(trace: Trace) -> list[tuple[str, float]]:
    """Return what the trace spent its time on, the longest first: names on the critical path and their own seconds."""
    path = critical_path(trace)
    inner: dict[str | None, int] = defaultdict(int)
    for each, end in path:
        inner[each.span.parent_id] += end - each.span.start
    own: dict[str, float] = defaultdict(float)
    for each, end in path:
        own[each.span.name] += max(end - each.span.start - inner[each.id], 0) / 1e9
    return sorted(own.items(), key=lambda pair: -pair[1])


def _grouped(
    rows: Sequence[tuple[Observation | MissingSpan, int]], shown: set[str]
) -> list[tuple[list[Observation | MissingSpan], int]]:
    """Return the rows with equal siblings that have nothing below and follow each other as one."""
    groups: list[tuple[list[Observation | MissingSpan], int]] = []
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


def _are_equal(rows: Sequence[tuple[Observation | MissingSpan, int]], one: int, other: int) -> bool:
    (first, depth), (second, second_depth) = rows[one], rows[other]
    return (
        isinstance(first, Observation)
        and isinstance(second, Observation)
        and depth == second_depth
        and first.span.parent_id == second.span.parent_id
        and (first.span.name, first.type, first.level) == (second.span.name, second.type, second.level)
    )


def _tree_row(
    group: Sequence[Observation | MissingSpan], depth: int, below: int, axis: Axis, critical: set[str]
) -> TreeRow:
    each = group[0]
    if isinstance(each, MissingSpan):
        return TreeRow(None, depth, below, *axis.place(each.start, axis.end))
    spans = [one for one in group if isinstance(one, Observation)]
    place = axis.place(each.span.start, max(one.span.end for one in spans))
    seconds = sum(one.latency for one in spans)
    return TreeRow(each, depth, below, *place, len(spans), seconds, any(one.id in critical for one in spans))


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
