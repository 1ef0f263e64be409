"""A graph that nobody runs in a `Turn` is found by its thread and its user all the same; in a request it is a turn."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import convert_to_messages
from langchain_core.tracers.schemas import Run
from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, get_current_span, set_span_in_context

from telemetry import provider
from telemetry.context import Scope, stamps
from telemetry.failures import contained
from telemetry.json_text import dump
from telemetry.span import fail
from telemetry.turn import Outcome, current_turn

_BEGUN = "graph_turn"
# Where the caller's config says it: our own names, then those of Langfuse's callback handler.
_SESSION = ("session_id", "thread_id", "langfuse_session_id")
_USER = ("user_id", "langfuse_user_id")


@dataclass
class GraphTurn:
    """The turn of one run of a graph; it has spans only in a request: its own, and the request's where that is a root.

    A backend takes a trace's input and output from its root.
    """

    spans: Sequence[Span] = ()
    waits: bool = False
    error: BaseException | None = None

    def tell(self, key: str, state: Any) -> None:
        """Write what was said last on each of the spans."""
        with contained("tell a graph's turn"):
            if self.spans and (text := _last_words(state)):
                for span in self.spans:
                    span.set_attribute(key, text)

    def end(self, outputs: Any) -> None:
        """Tell the answer and how it went, and end the turn's own span."""
        if not self.waits:
            self.tell("output.value", outputs)
        for span in self.spans[:1]:
            if self.error:
                fail(span, self.error)
            span.set_attribute("turn.status", self._status)
            span.end()

    @property
    def _status(self) -> Outcome:
        if self.error:
            return "failed" if isinstance(self.error, Exception) else "cancelled"
        return "waiting" if self.waits else "completed"


def of(run: Run) -> GraphTurn | None:
    """Return the turn that began with this run."""
    return run.extra.get(_BEGUN)


@contextmanager
def began(run: Run) -> Iterator[None]:
    """Let a run's span begin below its turn's and with what its config says, where a graph begins with this run."""
    metadata = run.extra.get("metadata") or {}
    if run.parent_run_id or metadata.get("ls_integration") != "langgraph" or current_turn():
        yield
        return
    begun, inside = _begin(run.name, metadata)
    run.extra[_BEGUN] = begun
    begun.tell("input.value", run.inputs)
    token = otel.attach(inside)
    try:
        yield
    finally:
        otel.detach(token)


def _begin(name: str, metadata: Mapping[str, Any]) -> tuple[GraphTurn, Context]:
    request = get_current_span()
    inside = _scope(name, metadata).enter()
    if getattr(request, "kind", None) is not SpanKind.SERVER or not request.is_recording():
        return GraphTurn(), inside
    span = provider.tracer().start_span("turn", inside, attributes={"openinference.span.kind": "AGENT"})
    is_root = getattr(request, "parent", None) is None
    return GraphTurn((span, request) if is_root else (span,)), set_span_in_context(span, inside)


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
