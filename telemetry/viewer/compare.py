"""Two traces side by side, with what differs marked."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from telemetry.viewer.access import Reader
from telemetry.viewer.observation import Observation, Trace, text
from telemetry.viewer.plots import duration, money
from telemetry.viewer.render import page, pretty
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Store
from telemetry.viewer.summary import TraceFilters, TraceSummary
from telemetry.viewer.timeline import tree_rows

# How many traces are offered, and how many lines of a text and rows of a tree are compared.
OFFERED = 20
LINES = 400
ROWS = 2_000

router = APIRouter(dependencies=[Reader])


@dataclass(frozen=True)
class Figure:
    """One figure of both traces."""

    name: str
    left: str
    right: str


@dataclass(frozen=True)
class Line:
    """A line of a text: of both, or of one side alone."""

    left: str | None
    right: str | None

    @property
    def differs(self) -> bool:
        """Whether the two sides are not the same."""
        return self.left != self.right


@dataclass(frozen=True)
class PairRow:
    """The same span of both traces, or a span of one alone, and the lines of its input and output that differ."""

    depth: int
    left: Observation | None
    right: Observation | None
    texts: Sequence[tuple[str, Sequence[Line]]]

    @property
    def shown(self) -> Observation:
        """The span of the side that has one."""
        found = self.left or self.right
        assert found  # noqa: S101 - one side has it
        return found


@router.get(f"/project/{PROJECT}/compare")
def show_comparison(
    request: Request, left: Annotated[str, Query(max_length=64)], right: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Show two traces side by side, or offer the traces to compare one with."""
    store: Store = request.app.state.store
    first = _summary(store, left)
    if not right:
        return page(request, "choose.html", first=first, offered=_offered(store, first), live=0)
    second = _summary(store, right)
    traces = Trace(left, store.observations(left)), Trace(right, store.observations(right))
    return page(
        request,
        "compare.html",
        first=first,
        second=second,
        figures=_figures((first, second), traces),
        texts=[
            (name, texts)
            for name, one, other in (
                ("Question", first.question, second.question),
                ("Answer", first.answer or first.failure, second.answer or second.failure),
            )
            if (texts := _lines(one, other))
        ],
        rows=list(_pairs(*traces)),
        live=0,
    )


def _summary(store: Store, trace_id: str) -> TraceSummary:
    if found := store.trace(trace_id):
        return found
    raise HTTPException(404, f"There is no trace {trace_id:.50}.")


def _offered(store: Store, first: TraceSummary) -> list[TraceSummary]:
    """Return traces with the same words, then those of the same agent, without the trace itself."""
    words = " ".join(first.question.split()[:12])[:500]
    same = store.latest(OFFERED, TraceFilters(text=words, all="1")) if words else []
    agent = store.latest(OFFERED, TraceFilters(name=first.given_name, all="1"))
    found = {each.trace_id: each for each in (*same, *agent)}
    found.pop(first.trace_id, None)
    return list(found.values())[:OFFERED]


def _figures(summaries: tuple[TraceSummary, TraceSummary], traces: tuple[Trace, Trace]) -> list[Figure]:
    def both(of: tuple[Any, Any]) -> tuple[str, str]:
        return str(of[0]), str(of[1])

    def listed(trace: Trace, kind: str) -> str:
        names = [each.model or each.span.name for each in trace.observations if each.type == kind]
        return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))

    one, other = summaries
    versions = (", ".join(sorted({each.version for each in trace.observations if each.version})) for trace in traces)
    return [
        Figure("Status", one.state, other.state),
        Figure("Agent", one.name, other.name),
        Figure("Version", *versions),
        Figure("Latency", duration(one.latency), duration(other.latency)),
        Figure("First token", duration(one.first_token), duration(other.first_token)),
        Figure("Tokens", f"{one.tokens:,}", f"{other.tokens:,}"),
        Figure("Cost", money(one.cost), money(other.cost)),
        Figure("Models", *(listed(trace, "GENERATION") for trace in traces)),
        Figure("Tools", *(listed(trace, "TOOL") for trace in traces)),
        Figure("Spans", *both((one.spans, other.spans))),
        Figure("Errors", *both((one.errors, other.errors))),
    ]


def _pairs(left: Trace, right: Trace) -> Iterator[PairRow]:
    """Yield the spans of both trees in order; spans of the same depth, type and name are a pair."""
    sides = [list(_rows(trace)) for trace in (left, right)]
    keys = [[(depth, each.type, each.span.name) for depth, each in side] for side in sides]
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if kind == "equal":
            for (depth, one), (_, other) in zip(sides[0][a:b], sides[1][c:d], strict=True):
                yield PairRow(depth, one, other, list(_texts(one, other)))
        else:
            yield from (PairRow(depth, one, None, ()) for depth, one in sides[0][a:b])
            yield from (PairRow(depth, None, other, ()) for depth, other in sides[1][c:d])


def _rows(trace: Trace) -> Iterator[tuple[int, Observation]]:
    observations = {each.id: each for each in trace.observations}
    for row in tree_rows([each.summary for each in trace.observations])[:ROWS]:
        if row.span:
            yield row.depth, observations[row.span.id]


def _texts(one: Observation, other: Observation) -> Iterator[tuple[str, Sequence[Line]]]:
    for name in ("input", "output", "message"):
        if lines := _lines(getattr(one, name), getattr(other, name)):
            yield name, lines


def _lines(left: Any, right: Any) -> list[Line]:
    """Return the lines of two texts beside each other, nothing if they are the same."""
    if text(left) == text(right):
        return []
    sides = [pretty(value).splitlines()[:LINES] if value is not None else [] for value in (left, right)]
    found: list[Line] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *sides, autojunk=False).get_opcodes():
        one, other = sides[0][a:b], sides[1][c:d]
        if kind == "equal":
            found += [Line(line, line) for line in one]
        else:
            rows = max(len(one), len(other))
            padded = [[*side, *[None] * (rows - len(side))] for side in (one, other)]
            found += [Line(*pair) for pair in zip(*padded, strict=True)]
    return found
