"""Span trees as text."""

from telemetry.export.otlp import Span
from telemetry.testing.tree import span_tree


def span(name: str, number: int, parent: int | None = None, **fields: object) -> Span:
    ids = {"trace_id": "0" * 31 + "1", "span_id": f"{number:016x}", "parent_id": parent and f"{parent:016x}"}
    return Span(**{**ids, "name": name, "kind": "INTERNAL", "start": number, "end": number, "attributes": {}, **fields})


def test_a_tree() -> None:
    """Children stand below their parent in the order of their start, with kinds and errors where they say something."""
    spans = [
        span("tool", 4, 2, attributes={"openinference.span.kind": "TOOL"}, status="ERROR"),
        span("model", 3, 2, attributes={"openinference.span.kind": "LLM", "tokens": 7}),
        span("node", 2, 1, attributes={"openinference.span.kind": "CHAIN"}),
        span("GET", 1, kind="SERVER"),
    ]

    assert span_tree(spans, ["tokens"]) == "GET SERVER\n  node\n    model LLM tokens=7\n    tool TOOL ERROR"


def test_an_orphan_is_marked() -> None:
    """A span whose parent is elsewhere says so."""
    assert span_tree([span("child", 2, 1)]) == "^child"


def test_a_deep_tree() -> None:
    """A trace deeper than Python's stack is printed."""
    assert len(span_tree([span("s", n, n - 1 or None) for n in range(1, 3000)]).splitlines()) == 2999


def test_a_circle_of_parents() -> None:
    """Spans that are each other's parents, or their own, stand behind the others, each once."""
    spans = [span("root", 9), span("a", 1, 2), span("b", 2, 1), span("c", 3, 2), span("self", 4, 4)]
    assert span_tree(spans) == "root\n^a\n  b\n    c\n^self"
