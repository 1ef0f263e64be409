"""The rows of a trace: its critical path, equal siblings, zoom and graph; and the cards of tools and documents."""

import json

from telemetry.export.otlp import Link, Span
from telemetry.viewer.cards import document_cards, tool_cards
from telemetry.viewer.graph import graph
from telemetry.viewer.observation import NODE, Observation, SpanSummary
from telemetry.viewer.timeline import WIDTH, Axis, critical_path, tree_rows, waited_for
from tests.telemetry.viewer.conftest import Recorder, Viewer

S = 10**9


def span(number: int, parent: int | None, name: str, start: float, end: float, **attributes: object) -> Span:
    times = int(start * S), int(end * S)
    ids = f"{number:016x}", f"{parent:016x}" if parent else None
    return Span(
        "a" * 32, *ids, name, "INTERNAL", *times, {key.replace("_", "."): attributes[key] for key in attributes}
    )


def trace(*spans: Span) -> list[SpanSummary]:
    return [Observation(each).summary for each in sorted(spans, key=lambda each: each.start)]


def test_the_critical_path_is_what_was_waited_for() -> None:
    """Of two that ran at once only the slower one is on it, and the time is that of each one's own."""
    made = trace(
        span(1, None, "turn", 0, 10),
        span(2, 1, "fast", 0, 2),
        span(3, 1, "slow", 0, 6),
        span(4, 3, "inner", 1, 5),
        span(5, 1, "last", 7, 10),
    )
    assert {each.name for each, _ in critical_path(made)} == {"turn", "slow", "inner", "last"}
    assert waited_for(critical_path(made)) == [("inner", 4.0), ("last", 3.0), ("slow", 2.0), ("turn", 1.0)]
    critical = {each.id for each, _ in critical_path(made)}
    marked = {row.span.name for row in tree_rows(made, critical=critical) if row.span and row.is_critical}
    assert marked == {"turn", "slow", "inner", "last"}


def test_what_outlasts_its_parent_was_waited_for() -> None:
    """The request of a stream ends when the stream begins: the trace waits for what the answer does meanwhile."""
    made = trace(
        span(1, None, "page", 0, 10),
        span(2, 1, "request", 1, 2),
        span(3, 2, "server", 1, 10.5),
        span(4, 3, "model", 2, 9),
    )
    assert {each.name for each, _ in critical_path(made)} == {"page", "request", "server", "model"}
    assert waited_for(critical_path(made)) == [("model", 7.0), ("server", 2.5), ("page", 1.0), ("request", 0.0)]


def test_a_model_counts_before_a_plain_span_at_the_same_time() -> None:
    """The span of a stream lasts as long as the whole turn, and says nothing of what that waited for."""
    model = {"openinference_span_kind": "LLM"}
    made = trace(span(1, None, "turn", 0, 10), span(2, 1, "stream", 0, 10), span(3, 1, "model", 1, 8, **model))
    assert waited_for(critical_path(made)) == [("model", 7.0), ("turn", 3.0)]


def test_a_trace_without_a_root_has_no_critical_path() -> None:
    """Nothing is guessed before the root has come, and spans that are each other's parents end it."""
    assert critical_path(trace(span(2, 9, "child", 0, 1))) == []
    assert waited_for(critical_path(trace(span(1, 2, "a", 0, 1), span(2, 1, "b", 0, 1)))) == []


def test_equal_siblings_are_one_row() -> None:
    """Four or more in a row are one row until it is unfolded or one of them is chosen; others stay as they are."""
    spans = [span(number, 1, "look", number, number + 0.5) for number in range(2, 8)]
    made = trace(span(1, None, "turn", 0, 10), *spans, span(9, 1, "tell", 9, 10))
    rows = tree_rows(made)
    assert [(row.span.name, row.siblings) for row in rows if row.span] == [
        ("turn", 1),
        ("look", 6),
        ("tell", 1),
    ]
    assert rows[1].seconds == 3.0
    assert (rows[1].x, rows[1].width) == (0.2 * WIDTH, 0.55 * WIDTH)
    assert [row.below for row in rows] == [2, 0, 0]
    assert len(tree_rows(made, unfolded=spans[0].span_id)) == len(tree_rows(made, chosen=spans[3].span_id)) == 8
    parent = trace(span(1, None, "turn", 0, 10), *spans, span(10, 7, "inner", 7, 7.2))
    assert [row.siblings for row in tree_rows(parent)] == [1, 5, 1, 1]


def test_zoom_shows_a_part_of_the_time() -> None:
    """Bars are cut at the borders of the part, and its quarters are told from its start."""
    made = trace(span(1, None, "turn", 0, 10), span(2, 1, "early", 0, 1), span(3, 1, "late", 6, 8))
    axis = Axis(5 * S, 9 * S)
    found = {row.span.name: (row.x, row.width) for row in tree_rows(made, axis=axis) if row.span}
    assert found == {"turn": (0, WIDTH), "early": (0, 0), "late": (WIDTH / 4, WIDTH / 2)}
    assert axis.ticks == [0, 1, 2, 3, 4]


def test_a_graph_has_the_agents_nodes() -> None:
    """Nodes are in the order of their first runs with their counts; edges say how often one followed another."""
    names = ["model", "tools", "model", "tools", "model", "end"]
    nodes = [span(at, 1, name, at, at + 0.5) for at, name in enumerate(names, 2)]
    for each in nodes:
        each.attributes[NODE] = each.name
    drawn = graph(trace(span(1, None, "turn", 0, 10), *nodes))
    assert drawn
    assert [(node.name, node.runs, node.seconds) for node in drawn.nodes] == [
        ("model", 3, 1.5),
        ("tools", 2, 1.0),
        ("end", 1, 0.5),
    ]
    assert sorted(edge.count for edge in drawn.edges) == [1, 2, 2]
    assert graph(trace(span(1, None, "turn", 0, 10))) is None


def test_offered_tools_and_found_documents_are_cards() -> None:
    """Whatever the format: OpenInference's keys, GenAI's definitions, a request's parameters, LangChain's documents."""
    schema = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"a": 1}}}
    for name, value in (
        ("llm.tools.0.tool.json_schema", json.dumps(schema)),
        ("gen_ai.tool.definitions", json.dumps([schema])),
        ("llm.invocation_parameters", json.dumps({"tools": [schema]})),
    ):
        [card] = tool_cards(Observation(span(1, None, "m", 0, 1).but(attributes={name: value})))
        assert (card.name, card.description, card.parameters) == ("look", "Look.", {"a": 1})
    flat = {
        "retrieval.documents.0.document.content": "Rain",
        "retrieval.documents.0.document.score": 0.5,
        "retrieval.documents.0.document.id": "d",
    }
    listed = {
        "openinference.span.kind": "RETRIEVER",
        "output.value": json.dumps([{"page_content": "Rain", "id": "d", "metadata": {"score": 0.5}}]),
    }
    for attributes in (flat, listed):
        [document] = document_cards(Observation(span(1, None, "r", 0, 1).but(attributes=attributes)))
        assert (document.content, document.id, document.score) == ("Rain", "d", "0.5")
    broken = {"llm.tools.0.tool.json_schema": "[", "gen_ai.tool.definitions": "7", "retrieval.documents.x": 1}
    assert tool_cards(Observation(span(1, None, "m", 0, 1).but(attributes=broken))) == []
    assert document_cards(Observation(span(1, None, "m", 0, 1).but(attributes=broken))) == []


def test_linked_traces_lead_to_each_other(viewer: Viewer, recorder: Recorder) -> None:
    """A trace shows those that it links to and those that link to it, by what was asked."""
    first = recorder.tracer.start_span("turn", attributes={"input.value": "How is Paris?"})
    first.end()
    one = viewer.send(recorder.spans)
    resumed = {"input.value": "Yes", "langfuse.trace.metadata.resumes_trace": one}
    recorder.tracer.start_span("turn", attributes=resumed).end()
    other = viewer.send(recorder.spans)
    assert Observation(span(1, None, "n", 0, 1).but(links=[Link(one, "b" * 16, {})])).linked_traces == [one]
    pages = [viewer.client.get(f"/project/local/traces/{trace_id}").text for trace_id in (one, other)]
    assert f'<dt>Linked from</dt><dd><a href="/project/local/traces/{other}">Yes</a>' in pages[0]
    assert f'<dt>Links to</dt><dd><a href="/project/local/traces/{one}">How is Paris?</a>' in pages[1]
