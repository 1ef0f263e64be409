"""How the span of a LangChain run ends, whoever recorded it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from traceback import walk_tb
from typing import Any
from uuid import UUID

from opentelemetry.trace import Span, StatusCode

from telemetry.sampler import model_call_ended
from telemetry.span import fail

# What LangGraph raises to move on: to ask a person, to go to a node of the graph above.
_CONTROL = "GraphBubbleUp"
# Who waits in one of these when it is cancelled leaves a thread behind that goes on.
_INTO_THREADS = {"run_in_executor", "to_thread", "run_sync"}


def tell(span: Span, error: BaseException) -> bool:
    """Give a run's span what this error means; returns whether it is a failure."""
    if not isinstance(error, Exception):
        end_early(span, cancelled=True, abandoned=_waited_for_thread(error))
        return False
    if _CONTROL in {kind.__name__ for kind in type(error).__mro__}:
        _end_in_order(span, interrupted="Interrupt" in type(error).__name__)
        return False
    fail(span, error)
    return True


def end_early(span: Span, *, cancelled: bool, abandoned: bool) -> None:
    """Say of a span that its run was stopped, or left behind; that is no error."""
    # A status of OK is final: an ERROR that follows does not replace it.
    span.set_status(StatusCode.OK)
    marks = {"cancelled": cancelled, "abandoned": abandoned}
    span.set_attributes({name: True for name, holds in marks.items() if holds})
    span.set_attribute("langfuse.observation.level", "WARNING")


def first_token(span: Span | None, run_id: UUID) -> None:
    """Note when a model began to answer."""
    now = datetime.now(UTC)
    model_call_ended(run_id)
    if span:
        span.set_attribute("langfuse.observation.completion_start_time", now.isoformat())


def partial(said: Sequence[Any]) -> dict[str, str]:
    """Return the attributes of an answer that broke off, from the pieces that were said: text, or lists of parts."""
    text = "".join(map(_words, said))
    return {
        "output.value": text,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": text,
    }


def _words(piece: Any) -> str:
    if isinstance(piece, list):
        return "".join(map(_words, piece))
    return str(piece.get("text", "")) if isinstance(piece, dict) else str(piece)


def _end_in_order(span: Span, *, interrupted: bool) -> None:
    span.set_status(StatusCode.OK)
    if interrupted:
        span.set_attribute("interrupted", True)


def _waited_for_thread(error: BaseException) -> bool:
    frames = list(walk_tb(error.__traceback__))
    return bool(frames) and any(frame.f_code.co_name in _INTO_THREADS for frame, _ in frames[-2:])
