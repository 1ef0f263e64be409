"""The agent of a trace as a graph: its nodes, and how often it went from one to the next."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from telemetry.viewer.observation import SpanSummary

BOX_WIDTH, BOX_HEIGHT, STEP = 220, 40, 72
MIDDLE = 170
# Edges that are not from one box to the next curve beside the boxes, each further out.
CURVE, CURVE_STEP = 36, 22
STEPS = {"GENERATION", "TOOL", "RETRIEVER", "EMBEDDING"}


@dataclass(frozen=True)
class Node:
    """A node: where its box is, how often it ran, its seconds together, and its first span."""

    name: str
    y: int
    runs: int
    seconds: float
    failed: int
    span_id: str


@dataclass(frozen=True)
class Edge:
    """How often one node came after another: the line between them, and where the number is."""

    path: str
    count: int
    x: int
    y: int


@dataclass(frozen=True)
class Graph:
    """The nodes from the top down in the order of their first runs, and the edges between them."""

    nodes: Sequence[Node]
    edges: Sequence[Edge]
    width: int
    height: int


def graph(spans: Sequence[SpanSummary]) -> Graph | None:
    """Return the graph of a trace, None if it has fewer than two nodes.

    The nodes are LangGraph's, or else models and tools by their names.
    """
    runs = [each for each in spans if each.is_node] or [each for each in spans if each.type in STEPS]
    runs.sort(key=lambda each: (each.start, each.end))
    by_name: dict[str, list[SpanSummary]] = {}
    for each in runs:
        by_name.setdefault(each.name, []).append(each)
    if len(by_name) < 2:
        return None
    nodes = [_node(name, at, found) for at, (name, found) in enumerate(by_name.items())]
    places = {name: at for at, name in enumerate(by_name)}
    steps = Counter((places[one.name], places[other.name]) for one, other in itertools.pairwise(runs))
    outer: Counter[bool] = Counter()
    edges = [_edge(one, other, count, outer) for (one, other), count in steps.items()]
    reach = max(outer.values(), default=0) * CURVE_STEP + CURVE
    return Graph(nodes, edges, 2 * (MIDDLE + reach), len(nodes) * STEP)


def _node(name: str, at: int, runs: Sequence[SpanSummary]) -> Node:
    failed = sum(each.level == "ERROR" for each in runs)
    return Node(
        name, at * STEP + (STEP - BOX_HEIGHT) // 2, len(runs), sum(each.latency for each in runs), failed, runs[0].id
    )


def _edge(one: int, other: int, count: int, outer: Counter[bool]) -> Edge:
    start, end = one * STEP + STEP // 2, other * STEP + STEP // 2
    if other == one + 1:
        low, high = start + BOX_HEIGHT // 2, end - BOX_HEIGHT // 2
        return Edge(f"M0 {low}V{high - 2}", count, 18, (low + high) // 2 + 4)
    # Forward on the right, back on the left; to itself as a loop on the left.
    forward = other > one
    side = 1 if forward else -1
    outer[forward] += 1
    border = side * BOX_WIDTH // 2
    reach = border + side * (CURVE + CURVE_STEP * (outer[forward] - 1))
    if one == other:
        start, end = start - 10, end + 10
    else:
        start, end = start + 6 * (1 if forward else -1), end - 6 * (1 if forward else -1)
    path = f"M{border} {start}C{reach} {start} {reach} {end} {border + 2 * side} {end}"
    return Edge(path, count, reach - side * 10, (start + end) // 2 + 4)
