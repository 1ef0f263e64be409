"""Record metrics of finished spans, whatever created them, so that all recorders and frameworks give the same."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, StatusCode, set_span_in_context

from telemetry.export.formats.error import class_said
from telemetry.export.formats.genai import KIND, KINDS
from telemetry.export.formats.marks import RECORDERS, SAME_CALL_BELOW
from telemetry.export.formats.otel_genai import OPERATION, OPERATIONS, provider_name
from telemetry.internal_errors import handle_internal_errors
from telemetry.metrics.instruments import OTHER, Instruments

# To create an agent is not to invoke it.
_KINDS = {operation: kind for operation, kind in KINDS.items() if operation != "create_agent"}
_STATUS = "turn.status"
# The page's part of a background turn ends when the turn is queued; the turn itself is counted where it runs.
_QUEUED = "queued"
_FIRST_TOKEN = "langfuse.observation.completion_start_time"  # noqa: S105 - no password
_FIRST_TOKEN_EVENT = "First Token Stream Event"  # noqa: S105 - no password
_TOKENS = {
    "input": ("llm.token_count.prompt", "gen_ai.usage.input_tokens"),
    "output": ("llm.token_count.completion", "gen_ai.usage.output_tokens"),
}
_MODEL = ("llm.model_name", "embedding.model_name", "gen_ai.request.model", "gen_ai.response.model")
_COST = ("llm.cost.total", "operation.cost")
_AGENT = ("langfuse.trace.metadata.agent", "langfuse.trace.name")
_OWN_AGENT = ("gen_ai.agent.name", "agent.name", *_AGENT)

_TOOL = ("tool.name", "gen_ai.tool.name")
# Tokens have no exemplar, which costs a third of a measurement: that of their call's duration names the same span.
_NO_EXEMPLAR = set_span_in_context(INVALID_SPAN, Context())
# How many combinations of a provider, a model and an operation are built once only.
_CACHED = 256

Attributes = Mapping[str, Any]
Labels = dict[str, str]


class SpanMetrics(SpanProcessor):
    """Records the metrics of each span when it ends; durations with an exemplar that names its trace if it is sampled.

    `finish` sends the last metrics when the provider of the spans is shut down, or the program ends.
    """

    def __init__(self, instruments: Instruments, finish: Callable[[], object] = lambda: None) -> None:
        self._instruments = instruments
        self._finish = finish
        self._of_call = lru_cache(_CACHED)(self._build_call)
        self._recorders: dict[str, Callable[[ReadableSpan, Attributes, Context], None]] = {
            **dict.fromkeys(("LLM", "EMBEDDING", "RETRIEVER"), self._record_operation),
            "TOOL": self._record_tool,
            "AGENT": self._record_agent,
        }

    def on_end(self, span: ReadableSpan) -> None:
        """Record the span's metrics, if it is that of a model, a tool, an agent or a turn."""
        with handle_internal_errors("record a metric"):
            known = _plain(span.attributes)
            kind = known.get(KIND) or _KINDS.get(str(known.get(OPERATION)))
            record = self._recorders.get(str(kind))
            is_turn = _is_turn(span, known)
            if span.context is None or (record is None and not is_turn):
                return
            context = set_span_in_context(NonRecordingSpan(span.context), Context())
            if record:
                record(span, known, context)
            if is_turn:
                self._record_turn(span, known, context)

    def shutdown(self) -> None:
        """Send the metrics that are left."""
        self._finish()

    def _record_operation(self, span: ReadableSpan, known: Attributes, context: Context) -> None:
        # The span of the provider's own client below has the same call and its tokens.
        if known.get(SAME_CALL_BELOW):
            return
        of = self._instruments
        operation = str(known.get(OPERATION) or OPERATIONS[str(known.get(KIND))])
        call, by_token = self._of_call(operation, provider_name(known), str(_first(known, _MODEL) or ""))
        of.operation_duration.record(_duration_s(span), self._with_error(call, span), context)
        for names, attributes in by_token:
            count = _first(known, names)
            if isinstance(count, int) and count >= 0:
                of.token_usage.record(count, attributes, _NO_EXEMPLAR)
        if (first := _first_chunk_s(span, known)) is not None:
            of.first_chunk.record(first, call, context)
        cost = _first(known, _COST)
        if isinstance(cost, (int, float)) and cost > 0:
            of.cost.add(cost, {key: value for key, value in call.items() if key != OPERATION})

    def _record_tool(self, span: ReadableSpan, known: Attributes, context: Context) -> None:
        name = str(_first(known, _TOOL) or span.name)
        attributes = {"gen_ai.tool.name": self._instruments.bounded("tool", name), **self._agent(known, _AGENT)}
        self._instruments.tool_duration.record(_duration_s(span), self._with_error(attributes, span), context)

    def _record_agent(self, span: ReadableSpan, known: Attributes, context: Context) -> None:
        # A graph of LangChain's is timed as the turn that it runs in.
        if _scope(span) not in RECORDERS and _STATUS not in known:
            attributes = self._with_error(self._agent(known, _OWN_AGENT), span)
            self._instruments.agent_duration.record(_duration_s(span), attributes, context)

    def _record_turn(self, span: ReadableSpan, known: Attributes, context: Context) -> None:
        of, agent = self._instruments, self._agent(known, _AGENT)
        of.agent_duration.record(_duration_s(span), self._with_error(agent, span), context)
        of.turns.add(1, {**agent, _STATUS: of.bounded("status", known.get(_STATUS) or _status(span, known))})

    def _build_call(
        self, operation: str, provider: str, model: str
    ) -> tuple[Labels, list[tuple[tuple[str, ...], Labels]]]:
        """Return the attributes of a call, and for each type of its tokens where they are and their attributes."""
        of = self._instruments
        call = {
            OPERATION: of.bounded("operation", operation),
            "gen_ai.provider.name": of.bounded("provider", provider),
            **({"gen_ai.request.model": of.bounded("model", model)} if model else {}),
        }
        return call, [(names, {**call, "gen_ai.token.type": kind}) for kind, names in _TOKENS.items()]

    def _agent(self, known: Attributes, names: tuple[str, ...]) -> Labels:
        agent = _first(known, names)
        return {"gen_ai.agent.name": self._instruments.bounded("agent", agent)} if agent else {}

    def _with_error(self, attributes: Labels, span: ReadableSpan) -> Labels:
        return {**attributes, **self._error(span)} if span.status.status_code is StatusCode.ERROR else attributes

    def _error(self, span: ReadableSpan) -> Labels:
        known = span.attributes or {}
        found = known.get("error.type") or known.get("exception.type")
        for event in reversed(span.events) if found is None else ():
            found = (event.attributes or {}).get("exception.type")
            if found:
                break
        # The stack is on the span that failed first: those above have the class at the start of their status.
        found = found or class_said(span.status.description or "") or OTHER
        return {"error.type": self._instruments.bounded("error", found)}


def _plain(attributes: Attributes | None) -> Attributes:
    # Each access to the SDK's own mapping takes as long as a copy of it.
    return attributes.copy() if isinstance(attributes, MappingProxyType) else attributes or {}


def _is_turn(span: ReadableSpan, known: Attributes) -> bool:
    """Return whether a span is that of a turn: it says how the turn ended, or is an outermost run of LangChain."""
    if _STATUS in known:
        return known[_STATUS] != _QUEUED
    is_outermost = span.parent is None or span.parent.is_remote
    return is_outermost and _scope(span) in RECORDERS and known.get(KIND) in ("AGENT", "CHAIN", "LLM")


def _status(span: ReadableSpan, known: Attributes) -> str:
    if span.status.status_code is StatusCode.ERROR:
        return "failed"
    if known.get("cancelled"):
        return "cancelled"
    return "waiting" if known.get("interrupted") else "completed"


def _scope(span: ReadableSpan) -> str:
    return span.instrumentation_scope.name if span.instrumentation_scope else ""


def _duration_s(span: ReadableSpan) -> float:
    return max((span.end_time or 0) - (span.start_time or 0), 0) / 1e9


def _first_chunk_s(span: ReadableSpan, known: Attributes) -> float | None:
    began = known.get(_FIRST_TOKEN)
    if isinstance(began, str):
        at = datetime.fromisoformat(began).timestamp() * 1e9
    elif _scope(span) in RECORDERS:
        return None
    else:
        at = next((event.timestamp for event in span.events if event.name == _FIRST_TOKEN_EVENT), None)
    return None if at is None else max(at - (span.start_time or 0), 0) / 1e9


def _first(known: Attributes, names: tuple[str, ...]) -> Any:
    for name in names:
        if (value := known.get(name)) is not None:
            return value
    return None
