"""The turn of an outermost run outside a `Turn`: a graph, a chain or a model call.

The session, the user and the name of all spans below it come from its config. Below a request or a job it gets a span
`turn`; elsewhere the run's own span is that of the turn. The recorders call, in this order: `start` when the run
starts, `set_input`, `on_error` for each run below that fails, `set_output`, `set_status` before the run's span ends,
`end`.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, get_current_span, set_span_in_context

from telemetry import pipeline
from telemetry.context import Scope, scope_attributes
from telemetry.export.formats.marks import OWN_MESSAGES, RECORDERS
from telemetry.instrumentation.asgi import is_websocket
from telemetry.instrumentation.langchain import run_config
from telemetry.instrumentation.langchain.last_words import answer_in, identities, question_in
from telemetry.instrumentation.langchain.span_status import is_interrupt
from telemetry.internal_errors import handle_internal_errors
from telemetry.otel.local_root import local_root
from telemetry.plain_data import safe_text
from telemetry.span import fail, mark_cancelled
from telemetry.turn import OpenTurns, Outcome, RunCloser, in_turn, with_questions
from telemetry.turn_root import TurnRoot, outcome_of

# A retriever or a tool that is called directly is not an agent.
_TURNS = ("chain", "llm")
# What starts an `@entrypoint`: its graph has no name of its own. Early releases start graphs so by a node `__start__`.
_ENTRYPOINT = ("__start__",)
_SERVED = (SpanKind.SERVER, SpanKind.CONSUMER)
# A background task has a span of this instrumentation's, as its request has.
_FASTAPI = "opentelemetry.instrumentation.fastapi"


class ImplicitTurn:
    """The turn of one outermost run: its own span, and the root of the trace if that is in this process.

    Backends take a trace's input and output from its root. With several turns in one trace, the root gets the first
    question and the last answer.
    """

    def __init__(self, scope: dict[str, Any], root: Span | None, span: Span | None, *, is_turn: bool = True) -> None:
        self.open_runs: set[UUID] = set()
        self._scope = scope
        self._root = root
        self._span = span
        self._is_turn = is_turn
        self._run: Span | None = None
        self._on_root = TurnRoot(root, span)
        self._asked = False
        self._given: dict[str, int] = {}
        self._waits = False
        self._questions: dict[str, str] = {}
        self._error: BaseException | None = None
        self._cause = ""
        pipeline.shared(OpenTurns).add(self)

    @property
    def session_id(self) -> Any:
        """The session of all its spans, None where it has none."""
        return self._scope.get("session.id")

    def on_start(self, name: str, metadata: Mapping[str, Any], span: Span, *, outermost: bool) -> None:
        """Take the outermost run's span for the turn's, unless it has another; name the trace after an agent below."""
        if outermost and self._span is None:
            self._run = span
            if self._root is not None:
                self._on_root.set_turn(span)
        agent = agent_of(name, metadata) if metadata else None
        if agent and "langfuse.trace.name" not in self._scope:
            named = Scope(agent=agent, tags=self._scope.get("langfuse.trace.tags", ())).attributes
            self._scope.update(named)
            for each in filter(None, (self._span, self._root, span)):
                if each.is_recording():
                    each.set_attributes(named)

    def set_input(self, inputs: Any) -> None:
        """Set the question."""
        with handle_internal_errors("record a turn's question"):
            if not self._asked and (self._span or self._root) and (text := question_in(inputs)):
                self._asked, self._given = True, identities(inputs)
                self._write("input", text, first=True)

    def set_output(self, outputs: Any) -> None:
        """Set the answer, if there is one."""
        with handle_internal_errors("record a turn's answer"):
            if self._run and self._root is None and self._questions:
                # The run's own state ends with the call that a person has to approve, or with nothing.
                self._run.set_attribute(OWN_MESSAGES, with_questions("", self._questions.values()))
            if not self._waits and (self._span or self._root) and (text := answer_in(outputs, self._given)):
                self._write("output", text)

    def on_error(self, error: BaseException, *, outermost: bool) -> None:
        """Record the error of a run: that of the outermost run is the turn's; any may be a question to a person."""
        if is_interrupt(error):
            self._waits = True
            with handle_internal_errors("record a question"):
                interrupts = error.args[0] if error.args else ()
                # Each graph around the one that asks raises the interrupt again.
                self._questions |= {str(getattr(each, "id", at)): _question(each) for at, each in enumerate(interrupts)}
        if outermost:
            self._error = error

    def close(self, cause: str) -> None:
        """End all its runs, and with them the turn, as cancelled for this cause."""
        self._cause = cause
        if closer := pipeline.get(RunCloser):
            closer.end_runs(list(self.open_runs), cancelled=True, abandoned=False)

    def set_status(self) -> None:
        """Set the turn's status on the outermost run's span, if that is the turn's own."""
        if self._run and self._is_turn:
            self._run.set_attribute("turn.status", self._status)

    def end(self) -> None:
        """End the turn's own span with its status and its open questions."""
        pipeline.shared(OpenTurns).discard(self)
        if self._questions and self._status == "waiting":
            self._write("output", with_questions("", self._questions.values()))
        self._on_root.set_outcome(*outcome_of(None if self._waits else self._error, self._cause))
        if self._span:
            if self._error:
                fail(self._span, self._error)
            elif self._cause:
                mark_cancelled(self._span, self._cause)
            self._span.set_attribute("turn.status", self._status)
            self._span.end()

    def _write(self, place: str, text: str, *, first: bool = False) -> None:
        if self._span:
            self._span.set_attribute(f"{place}.value", text)
        self._on_root.write(place, text, first=first)

    @property
    def _status(self) -> Outcome:
        if self._waits:
            return "waiting"
        if self._error:
            return "failed" if isinstance(self._error, Exception) else "cancelled"
        return "cancelled" if self._cause else "completed"


def start(
    run_type: str, name: str, tags: Sequence[str] | None, metadata: Mapping[str, Any]
) -> tuple[ImplicitTurn, Context] | None:
    """Start the turn of an outermost run; return it and the context of the run's span, or None within a turn."""
    around = get_current_span()
    # A run below a recorder's span is part of the turn around, even in a thread, where it may have lost its parent.
    if in_turn() or _is_of(around, *RECORDERS):
        return None
    root = local_root(around)
    apart = is_websocket() and root is not None
    scope = run_config.scope_of(name, tags, metadata, root)
    inside = scope.enter(on_current_span=not apart)
    if run_type not in _TURNS:
        return ImplicitTurn(scope_attributes(inside), None, None, is_turn=False), inside
    if root is None or not (root.kind in _SERVED or _is_of(around, _FASTAPI)):
        return ImplicitTurn(scope_attributes(inside), root, None), inside
    span, context = _start_span(inside, apart=apart, connection=root)
    _put_on_root(None if apart else root, scope)
    return ImplicitTurn(scope_attributes(inside), None if apart else root, span), context


def agent_of(name: str, metadata: Mapping[str, Any]) -> str | None:
    """Return the name of the agent whose run this is: a graph's, an entrypoint's, or what its metadata says."""
    if found := metadata.get("lc_agent_name"):
        return str(found)
    if tuple(metadata.get("langgraph_triggers") or ()) == _ENTRYPOINT and not name.startswith("__"):
        return name
    return run_config.agent_name(name) if "ls_integration" in metadata and "langgraph_node" not in metadata else None


def _start_span(inside: Context, *, apart: bool, connection: Span) -> tuple[Span, Context]:
    # A connection that lasts carries many turns: each is a trace of its own, linked to the connection's.
    links = [Link(connection.get_span_context())] if apart else []
    context = set_span_in_context(_NO_SPAN, inside) if apart else inside
    attributes = {"openinference.span.kind": "AGENT"}
    span = pipeline.tracer().start_span("turn", context, attributes=attributes, links=links)
    return span, set_span_in_context(span, inside)


def _put_on_root(root: Span | None, scope: Scope) -> None:
    if root and root.is_recording():
        root.set_attributes(scope.attributes)


def _is_of(span: Span, *libraries: str) -> bool:
    scope = getattr(span, "instrumentation_scope", None)
    return getattr(scope, "name", None) in libraries


def _question(interrupt: Any) -> str:
    return safe_text(getattr(interrupt, "value", interrupt))


_NO_SPAN = get_current_span(otel.Context())
