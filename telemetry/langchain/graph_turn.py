"""A graph that nobody runs in a `Turn` is found by its thread and its user all the same; in a request it is a turn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.messages import convert_to_messages
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, get_current_span, set_span_in_context

from telemetry import provider
from telemetry.context import Scope, stamps
from telemetry.failures import contained
from telemetry.json_text import dump
from telemetry.span import fail
from telemetry.turn import Outcome, current_turn, with_questions

# Where the caller's config says it: our own names, then those of Langfuse's callback handler.
_SESSION = ("session_id", "thread_id", "langfuse_session_id")
_USER = ("user_id", "langfuse_user_id")
_FASTAPI = "opentelemetry.instrumentation.fastapi"


@dataclass(eq=False)
class GraphTurn:
    """The turn of one run of a graph; it has spans only in a request: its own, and the request's where that is a root.

    A backend takes a trace's input and output from its root.
    """

    root: UUID
    spans: Sequence[Span] = ()
    open_runs: set[UUID] = field(default_factory=set)
    waits: bool = False
    questions: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None

    def tell(self, key: str, state: Any) -> None:
        """Write what was said last on each of the spans."""
        with contained("tell a graph's turn"):
            if self.spans and (text := _last_words(state)):
                self._write(key, text)

    def ask(self, interrupts: Iterable[Any]) -> None:
        """Note what a person has to answer; each graph around the one that asks says so again."""
        self.waits = True
        with contained("note a graph's question"):
            self.questions |= {each.id: dump(each.value) for each in interrupts}

    def end(self) -> None:
        """Tell how it went, and what it asks, and end the turn's own span."""
        if self.questions and self._status == "waiting":
            self._write("output.value", with_questions("", self.questions.values()))
        for span in self.spans[:1]:
            if self.error:
                fail(span, self.error)
            span.set_attribute("turn.status", self._status)
            span.end()

    def _write(self, key: str, text: str) -> None:
        for span in self.spans:
            span.set_attribute(key, text)

    @property
    def _status(self) -> Outcome:
        if self.error:
            return "failed" if isinstance(self.error, Exception) else "cancelled"
        return "waiting" if self.waits else "completed"


_of_run: dict[UUID, GraphTurn] = {}


def began(run_id: UUID, parent_id: UUID | None, name: str, metadata: Mapping[str, Any]) -> Context | None:
    """Note that a run begins; of a graph's first run return where: below its turn, with what its config says."""
    turn = _turn_of(parent_id) if parent_id else None
    if turn:
        turn.open_runs.add(run_id)
        _of_run[run_id] = turn
    if parent_id or metadata.get("ls_integration") != "langgraph" or current_turn():
        return None
    _of_run[run_id], inside = _begin(run_id, name, metadata)
    return inside


def asked(run_id: UUID, inputs: Any) -> None:
    """Tell the question, where this run begins a turn."""
    if turn := _begun_by(run_id):
        turn.tell("input.value", inputs)


def answered(run_id: UUID, outputs: Any) -> None:
    """Tell the answer, where this run began a turn and has one."""
    if (turn := _begun_by(run_id)) and not turn.waits:
        turn.tell("output.value", outputs)


def failed(run_id: UUID, error: BaseException) -> None:
    """Note what a run ended with: a graph's first run has failed with it, any may have asked a person."""
    if turn := _turn_of(run_id):
        if "Interrupt" in type(error).__name__:
            turn.ask(error.args[0] if error.args else ())
        turn.error = error if turn.root == run_id else None


def left_open(run_id: UUID) -> list[UUID]:
    """Return the runs below a graph's first run that nobody has ended: LangChain forgets some that are cancelled."""
    turn = _begun_by(run_id)
    return list(turn.open_runs) if turn else []


def ended(run_id: UUID) -> None:
    """End the turn, where this run began it."""
    if turn := _of_run.pop(run_id, None):
        turn.open_runs.discard(run_id)
        if turn.root == run_id:
            turn.end()


def _begun_by(run_id: UUID) -> GraphTurn | None:
    turn = _turn_of(run_id)
    return turn if turn and turn.root == run_id else None


def _turn_of(run_id: UUID) -> GraphTurn | None:
    # Empty where every graph has a turn around it; Python computes the hash of a UUID each time it is asked.
    return _of_run.get(run_id) if _of_run else None


def _begin(run_id: UUID, name: str, metadata: Mapping[str, Any]) -> tuple[GraphTurn, Context]:
    request = get_current_span()
    inside = _scope(name, metadata).enter()
    if not _is_request(request) or not request.is_recording():
        return GraphTurn(run_id), inside
    span = provider.tracer().start_span("turn", inside, attributes={"openinference.span.kind": "AGENT"})
    is_root = getattr(request, "parent", None) is None
    return GraphTurn(run_id, (span, request) if is_root else (span,)), set_span_in_context(span, inside)


def _is_request(span: Span) -> bool:
    scope = getattr(span, "instrumentation_scope", None)
    # A background task has a span of FastAPI's instrumentation, as its request has.
    return getattr(span, "kind", None) is SpanKind.SERVER or getattr(scope, "name", None) == _FASTAPI


def _scope(name: str, metadata: Mapping[str, Any]) -> Scope:
    """What the config says, save what the code around it has said already."""
    known = stamps()
    return Scope(
        session_id=None if "session.id" in known else _first(metadata, _SESSION),
        user_id=None if "user.id" in known else _first(metadata, _USER),
        agent=None if "langfuse.trace.name" in known or name == "LangGraph" else name,
    )


def _first(metadata: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((str(metadata[name]) for name in names if metadata.get(name)), None)


def _last_words(state: Any) -> str:
    state = state.get("input", state) if isinstance(state, Mapping) else state
    state = getattr(state, "resume", None) or state
    messages = state.get("messages") if isinstance(state, Mapping) else None
    if not messages:
        return dump(state) if state else ""
    return convert_to_messages([messages[-1] if isinstance(messages, list) else messages])[0].text
