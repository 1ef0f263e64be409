"""Record a block of code as a turn: for agents that neither LangGraph nor a `Turn` runs."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from opentelemetry import context as otel
from opentelemetry.trace import INVALID_SPAN, Link, Span, get_current_span, set_span_in_context

from telemetry import pipeline
from telemetry.context import Scope
from telemetry.instrumentation.asgi import is_websocket
from telemetry.internal_errors import handle_internal_errors
from telemetry.otel.local_root import local_root
from telemetry.plain_data import safe_text
from telemetry.span import TraceRef, fail, mark_cancelled, reference
from telemetry.turn import OpenTurns, Outcome, mark_turn, with_questions
from telemetry.turn_root import TurnRoot, outcome_of


class turn(AbstractContextManager["turn"], AbstractAsyncContextManager["turn"]):  # noqa: N801 - used with `with`
    """Run the body as one turn of an agent, with its question, its answer and its outcome.

    Args:
        agent: the agent's name, also the name of the trace.
        input: the question, text or any other value.
        session_id: the conversation, `session.id`.
        user_id: whose turn it is, `user.id`.
        tags: tags to filter traces by.
        metadata: fields to filter traces by: text, numbers and booleans.

    Set `output` to the answer, and call `ask` with a question that a person has to answer first. An exception in the
    body fails the turn, a cancellation cancels it; both are raised. Use it with `with` or `async with`.

    Example:
        >>> import telemetry
        >>> with telemetry.turn("support", input="Hi", session_id="thread-7", user_id="ada") as turn:
        ...     turn.output = "Hello"
        >>> turn.status
        'completed'
    """

    def __init__(
        self,
        agent: str,
        *,
        input: Any = None,  # noqa: A002 - as backends call it
        session_id: str | None = None,
        user_id: str | None = None,
        tags: tuple[str, ...] | list[str] = (),
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._scope = Scope(agent=agent, session_id=session_id, user_id=user_id, tags=tags, metadata=metadata or {})
        self._input = input
        self._questions: list[str] = []
        self._root = TurnRoot(None, None)
        self._token: Token[otel.Context] | None = None
        self._is_closed = False
        self.span: Span = INVALID_SPAN
        self.output: Any = None
        self.status: Outcome | None = None

    @property
    def trace(self) -> TraceRef | None:
        """The trace of the turn, None with tracing off."""
        return reference(self.span)

    def ask(self, question: Any) -> None:
        """Add a question that a person has to answer before the agent continues."""
        self._questions.append(safe_text(question))

    def close(self, cause: str) -> None:
        """End it before its body ends, as cancelled for this cause: the service stops."""
        self._is_closed, self.status = True, "cancelled"
        self._end(None, cause)

    def __enter__(self) -> Self:
        with handle_internal_errors("start a turn"):
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        if self._token:
            otel.detach(self._token)
        if not self._is_closed:
            self.status = _outcome(error, waits=bool(self._questions))
            with handle_internal_errors("end a turn"):
                self._end(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, stack)

    def _begin(self) -> None:
        root = local_root(get_current_span())
        # A WebSocket carries many turns: each is a separate trace, linked to that of the connection.
        apart = root is not None and is_websocket()
        inside = self._scope.enter(on_current_span=not apart)
        self.span = pipeline.tracer().start_span(
            "turn",
            set_span_in_context(INVALID_SPAN, inside) if apart else inside,
            attributes={"openinference.span.kind": "AGENT"},
            links=[Link(root.get_span_context())] if root and apart else [],
        )
        self._root = TurnRoot(None if apart else root, self.span)
        if root and not apart and root.is_recording():
            root.set_attributes(self._scope.attributes)
        self._token = otel.attach(mark_turn(self, set_span_in_context(self.span, inside)))
        pipeline.shared(OpenTurns).add(self)
        if self._input is not None:
            self._write("input", safe_text(self._input), first=True)

    def _end(self, error: BaseException | None, cause: str = "") -> None:
        pipeline.shared(OpenTurns).discard(self)
        answer = "" if self.output is None else safe_text(self.output)
        if text := with_questions(answer, self._questions if self.status == "waiting" else ()):
            self._write("output", text)
        if error:
            fail(self.span, error)
        elif cause:
            mark_cancelled(self.span, cause)
        self._root.set_outcome(*outcome_of(error, cause))
        self.span.set_attribute("turn.status", self.status or "completed")
        self.span.end()

    def _write(self, place: str, text: str, *, first: bool = False) -> None:
        self.span.set_attribute(f"{place}.value", text)
        self._root.write(place, text, first=first)


def _outcome(error: BaseException | None, *, waits: bool) -> Outcome:
    if error is None:
        return "waiting" if waits else "completed"
    return "failed" if isinstance(error, Exception) else "cancelled"
