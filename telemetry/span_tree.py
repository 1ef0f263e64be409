"""The finished spans of a turn, for a page that shows its tree before any backend has it."""

from collections import defaultdict
from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from telemetry import pipeline
from telemetry.context import TraceRef
from telemetry.export.formats.genai import KIND
from telemetry.internal_errors import handle_internal_errors

# How many spans of a turn are kept.
MAX_SPANS = 300
MAX_NAME = 100
_TOKENS = (
    ("llm.token_count.prompt", "gen_ai.usage.input_tokens"),
    ("llm.token_count.completion", "gen_ai.usage.output_tokens"),
)


@dataclass(frozen=True)
class SpanSummary:
    """A finished span without its content; the depth is that below the turn, the times are in milliseconds."""

    name: str
    kind: str | None
    depth: int
    start_ms: int
    duration_ms: int
    input_tokens: int | None
    output_tokens: int | None
    failed: bool


class SpanCollector(SpanProcessor):
    """Collects the spans of the turns that are followed, by their trace."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._spans: dict[str, dict[str, list[ReadableSpan]]] = defaultdict(dict)

    def follow(self, turn: TraceRef) -> None:
        """Collect the spans of this turn's trace from now on."""
        self._spans[turn.trace_id][turn.span_id] = []

    def take(self, turn: TraceRef) -> list[SpanSummary]:
        """Return the spans of the turn that have ended, as a tree in the order of their beginnings; forget them."""
        followed = self._spans.get(turn.trace_id, {})
        spans = followed.pop(turn.span_id, [])
        if not followed:
            self._spans.pop(turn.trace_id, None)
        return _tree(spans, turn.span_id)

    def on_end(self, span: ReadableSpan) -> None:
        """Add the span to the turns of its trace."""
        with handle_internal_errors("collect a span"):
            if span.context is None or not self._spans:
                return
            for spans in self._spans.get(format_trace_id(span.context.trace_id), {}).values():
                if len(spans) < MAX_SPANS:
                    spans.append(span)


def follow_turn(turn: TraceRef | None) -> None:
    """Collect the spans of this turn, if it is recorded."""
    active = pipeline.active()
    if active is None or turn is None or not turn.sampled:
        return
    collector = pipeline.get(SpanCollector)
    if collector is None or collector.provider is not active.provider:
        collector = pipeline.put(SpanCollector(active.provider))
        active.provider.add_span_processor(collector)
    collector.follow(turn)


def take_spans(turn: TraceRef | None) -> list[SpanSummary]:
    """Return the spans of a turn that is over, the turn's own first; none if they were not collected."""
    collector = pipeline.get(SpanCollector)
    return collector.take(turn) if collector and turn else []


def _tree(spans: list[ReadableSpan], root: str) -> list[SpanSummary]:
    children: dict[str, list[ReadableSpan]] = defaultdict(list)
    by_id = {format_span_id(span.context.span_id): span for span in spans if span.context}
    for span in spans:
        children[format_span_id(span.parent.span_id) if span.parent else ""].append(span)
    if root not in by_id:
        return []
    found: list[SpanSummary] = []
    began, waiting = by_id[root].start_time or 0, [(by_id[root], 0)]
    while waiting:
        span, depth = waiting.pop()
        found.append(_summary(span, depth, began))
        below = children.get(format_span_id(span.context.span_id), []) if span.context else []
        waiting += [(each, depth + 1) for each in sorted(below, key=lambda each: each.start_time or 0, reverse=True)]
    return found


def _summary(span: ReadableSpan, depth: int, began: int) -> SpanSummary:
    attributes, start = span.attributes or {}, span.start_time or 0
    tokens = [next((int(str(attributes[key])) for key in keys if key in attributes), None) for keys in _TOKENS]
    return SpanSummary(
        name=span.name[:MAX_NAME],
        kind=str(attributes[KIND]) if KIND in attributes else None,
        depth=depth,
        start_ms=(start - began) // 1_000_000,
        duration_ms=((span.end_time or start) - start) // 1_000_000,
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        failed=span.status.status_code is StatusCode.ERROR,
    )
