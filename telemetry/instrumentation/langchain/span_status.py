"""Set the status of the span of a LangChain run, for both recorders."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from traceback import walk_tb
from uuid import UUID

from opentelemetry.trace import Span, StatusCode

from telemetry.export.formats.langfuse import LEVEL, STATUS_MESSAGE
from telemetry.otel.sampler import model_call_ended
from telemetry.span import cancellation, fail
from telemetry.turn import current_turn

# What LangGraph raises for control flow: to ask a person, to go to a node of the parent graph.
_CONTROL, _INTERRUPT = "GraphBubbleUp", "GraphInterrupt"
# Code that is cancelled while it waits in one of these leaves a running thread behind.
_INTO_THREADS = {"run_in_executor", "to_thread", "run_sync"}
_HIDDEN = "langsmith:hidden"

# A hook of middleware around an agent or a model is not an agent.
_HOOK = re.compile(r".*\.(?:before|after|wrap)_(?:agent|model)(?:_call)?")


def is_hidden(run_type: str, tags: Sequence[str] | None) -> bool:
    """Return whether a run is a step of LangGraph's own, which it marks as one that nobody wants to see."""
    return run_type == "chain" and tags is not None and _HIDDEN in tags


def is_agent(name: str, run_type: str) -> bool:
    """Return whether a run is that of an agent, by its name; a tool stays a tool whatever its name."""
    return run_type == "chain" and "agent" in name.lower() and not _HOOK.fullmatch(name)


def is_node(tags: Sequence[str] | None) -> bool:
    """Return whether a run is a node of a graph, by the tags that LangGraph gives it."""
    return any(tag.startswith("graph:step:") for tag in tags or ())


def set_error_status(span: Span, error: BaseException) -> bool:
    """Set the status of a run's span for this error; return whether it is a failure."""
    if not isinstance(error, Exception):
        mark_cancelled(span, cancelled=True, abandoned=_waited_for_thread(error))
        return False
    if _is_langgraphs(error, _CONTROL):
        _mark_ended_in_order(span, interrupted=is_interrupt(error))
        return False
    fail(span, error)
    return True


def is_interrupt(error: BaseException) -> bool:
    """Return whether a graph raised this to ask a person something."""
    return _is_langgraphs(error, _INTERRUPT)


def mark_cancelled(span: Span, *, cancelled: bool, abandoned: bool) -> None:
    """Mark a span whose run was cancelled or abandoned, which is not an error."""
    # A status of OK is final: an ERROR that follows does not replace it.
    span.set_status(StatusCode.OK)
    turn = current_turn()
    marks = {"cancelled": cancelled, "abandoned": abandoned}
    span.set_attributes({name: True for name, holds in marks.items() if holds})
    message = cancellation(turn.cause if turn else "") if cancelled else "left behind: its turn ended without it"
    span.set_attributes({LEVEL: "WARNING", STATUS_MESSAGE: message})


def record_first_token(span: Span | None, run_id: UUID) -> None:
    """Record the time at which a model started to answer."""
    now = datetime.now(UTC)
    model_call_ended(run_id)
    if span:
        span.set_attribute("langfuse.observation.completion_start_time", now.isoformat())


def _is_langgraphs(error: BaseException, name: str) -> bool:
    # By name, because LangGraph may not be installed.
    return any(kind.__name__ == name and kind.__module__.startswith("langgraph.") for kind in type(error).__mro__)


def _mark_ended_in_order(span: Span, *, interrupted: bool) -> None:
    span.set_status(StatusCode.OK)
    if interrupted:
        span.set_attribute("interrupted", True)


def _waited_for_thread(error: BaseException) -> bool:
    frames = list(walk_tb(error.__traceback__))
    return bool(frames) and any(frame.f_code.co_name in _INTO_THREADS for frame, _ in frames[-2:])
