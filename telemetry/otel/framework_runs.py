"""Put the question, the answer and the agent of other frameworks' runs on the root of their trace."""

from weakref import WeakKeyDictionary, WeakValueDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import get_current_span

from telemetry.export.formats.genai import KIND, genai
from telemetry.export.formats.marks import ANSWER, QUESTION, RECORDERS, SAME_CALL_BELOW
from telemetry.export.formats.question import model_said, run_said
from telemetry.export.otlp import Attributes
from telemetry.internal_errors import handle_internal_errors
from telemetry.otel.local_root import local_root, recorded_span
from telemetry.otel.model_calls import is_model_span, note_model_call

# They write on the root themselves.
_OURS = ("telemetry", *RECORDERS)
_TOKENS = "llm.token_count."
_OF_TRACE = {"agent.name": "langfuse.trace.name", "session.id": "session.id", "user.id": "user.id"}


class FrameworkRuns(SpanProcessor):
    """Notes on the first span of a trace what the agents and the models below it were asked and answered.

    Backends take a trace's input and output from its root. With several runs in one trace, the root gets the first
    question and the last answer.
    """

    def __init__(self) -> None:
        # Only the SDK's own span can still be written to; it is not what a processor gets when it ends.
        self._roots: WeakValueDictionary[int, Span] = WeakValueDictionary()
        self._calls: WeakValueDictionary[int, Span] = WeakValueDictionary()
        self._asked: WeakKeyDictionary[Span, bool] = WeakKeyDictionary()
        self._written: WeakKeyDictionary[Span, dict[str, str]] = WeakKeyDictionary()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note the root of a span of another framework, and the model call that it is part of."""
        if _is_ours(span):
            return
        note_model_call(span)
        context, root = span.get_span_context(), local_root(span)
        if root and root is not span and context:
            self._roots[context.span_id] = root
            around = recorded_span(get_current_span(parent_context))
            if around and is_model_span(around) and not _is_ours(around):
                self._calls[context.span_id] = around

    def on_end(self, span: ReadableSpan) -> None:
        """Write on the root, if this is an agent or a model."""
        root = self._roots.pop(span.context.span_id, None) if span.context else None
        if root is None or not root.is_recording():
            return
        with handle_internal_errors("record another framework's run"):
            attributes = genai(dict(span.attributes or {}))
            if KIND in attributes:
                self._write(root, span, attributes)

    def _write(self, root: Span, span: ReadableSpan, attributes: Attributes) -> None:
        kind = attributes[KIND]
        if kind == "LLM":
            question, answer = model_said(attributes)
            if any(key.startswith(_TOKENS) for key in attributes) and span.context:
                call = self._calls.pop(span.context.span_id, None)
                if call and call.is_recording():
                    call.set_attribute(SAME_CALL_BELOW, True)
            is_run = False
        elif kind in ("AGENT", "CHAIN") and span.parent and span.parent.span_id == root.get_span_context().span_id:
            question, answer = run_said(attributes)
            is_run = bool(question)
        else:
            question, answer, is_run = "", "", False
        known = root.attributes or {}
        if question and (QUESTION not in known or (is_run and root not in self._asked)):
            root.set_attribute(QUESTION, question)
        if is_run:
            self._asked[root] = True
        if answer:
            root.set_attribute(ANSWER, answer)
        if kind in ("AGENT", "LLM"):
            self._name(root, {_OF_TRACE[key]: value for key, value in attributes.items() if key in _OF_TRACE})

    def _name(self, root: Span, found: Attributes) -> None:
        # Agents end from the inside to the outside.
        written, known = self._written.setdefault(root, {}), root.attributes or {}
        own = {key: str(value) for key, value in found.items() if known.get(key) in (None, written.get(key))}
        root.set_attributes(own)
        written.update(own)


def _is_ours(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name in _OURS
