"""Span trees as text, for tests and for people."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

from telemetry.export import otlp


@dataclass(frozen=True)
class _Row:
    key: tuple[str, str]
    parent: tuple[str, str] | None
    start: int
    name: str
    kinds: tuple[str, ...]
    attributes: dict[str, Any]


def span_tree(spans: Iterable[ReadableSpan | otlp.Span], attributes: Sequence[str] = ()) -> str:
    """Return the spans as an indented tree, one line per span.

    A line has the name, the kinds other than INTERNAL and CHAIN, ERROR if the span failed, and those of `attributes`
    that are set. `^` marks a span that is not below its parent: the parent is not among the spans, or they are each
    other's parents. Siblings are in the order of their start.
    """
    rows = sorted((_row(span) for span in spans), key=lambda row: row.start)
    known = {row.key for row in rows}
    children: dict[Any, list[_Row]] = defaultdict(list)
    for row in rows:
        children[row.parent if row.parent in known else None].append(row)
    return "\n".join(_line(row, depth, attributes) for row, depth in _walk(rows, children))


def _walk(rows: Sequence[_Row], children: dict[Any, list[_Row]]) -> Iterator[tuple[_Row, int]]:
    # Without recursion: a trace may be deeper than Python's stack. Spans that are below no root come last.
    waiting = [(row, 0) for row in reversed((*children[None], *rows))]
    shown: set[int] = set()
    while waiting:
        row, depth = waiting.pop()
        if id(row) in shown:
            continue
        shown.add(id(row))
        yield row, depth
        waiting += [(child, depth + 1) for child in reversed(children[row.key])]


def _line(row: _Row, depth: int, attributes: Sequence[str]) -> str:
    mark = "^" if depth == 0 and row.parent else ""
    shown = [f"{name}={row.attributes[name]}" for name in attributes if name in row.attributes]
    return "  " * depth + " ".join([mark + row.name, *row.kinds, *shown])


def _row(span: ReadableSpan | otlp.Span) -> _Row:
    if isinstance(span, otlp.Span):
        parent = (span.trace_id, span.parent_id) if span.parent_id else None
        kinds = _kinds(span.kind, span.status, span.attributes)
        return _Row((span.trace_id, span.span_id), parent, span.start, span.name, kinds, span.attributes)
    return _sdk_row(span)


def _sdk_row(span: ReadableSpan) -> _Row:
    assert span.context  # noqa: S101 - a span that was started has a context; only the type says otherwise
    trace_id = format_trace_id(span.context.trace_id)
    key = (trace_id, format_span_id(span.context.span_id))
    parent = (trace_id, format_span_id(span.parent.span_id)) if span.parent else None
    attributes = dict(span.attributes or {})
    kinds = _kinds(span.kind.name, span.status.status_code.name, attributes)
    return _Row(key, parent, span.start_time or 0, span.name, kinds, attributes)


def _kinds(kind: str, status: str, attributes: dict[str, Any]) -> tuple[str, ...]:
    meant = attributes.get("openinference.span.kind", "CHAIN")
    failed = status if status == "ERROR" else None
    return tuple(word for word in (kind, meant, failed) if word and word not in ("INTERNAL", "CHAIN"))
