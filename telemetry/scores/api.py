"""Score traces and runs: one function, and a client with the Langfuse SDK's method names."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from telemetry import pipeline
from telemetry.backends import langfuse
from telemetry.context import scope_attributes
from telemetry.scores.queue import Posted, ScoreQueue
from telemetry.scores.score import Score, Value
from telemetry.span import current_trace, get_span

logger = logging.getLogger(__name__)

UNRECORDED = "skipped: sampling left this turn out, so that there is no trace to score"


def score(
    name: str,
    value: Value | None,
    *,
    trace_id: str | None = None,
    observation_id: str | None = None,
    run_id: str | None = None,
    recorded: bool = True,
    user_id: str | None = None,
    comment: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> Posted | None:
    """Score a trace or a run; without an id, the current trace.

    Args:
        name: the name of the score.
        value: a number, a boolean or a category; None deletes the score.
        trace_id: the trace, 32 lower-case hexadecimal digits.
        observation_id: a span of the trace, 16 lower-case hexadecimal digits.
        run_id: the run, for LangSmith.
        recorded: False if the trace was not recorded: nothing is sent to Langfuse, and the result says so.
        user_id: who scores; default: the user of the current scope.
        comment: a text.
        metadata: further values.
        at: the time of the score; default: the start of the current span, or now. To replace or delete a score, pass
            the same time as before.

    Returns the queued score, which is on disk, or None if there is nothing to score. A later score of the same user
    with the same name on the same trace replaces it.

    Example:
        >>> import telemetry
        >>> def on_thumb(up: bool, trace_id: str) -> None:
        ...     telemetry.score("thumbs", up, trace_id=trace_id, user_id="ada")
    """
    if (queue := pipeline.get(ScoreQueue)) is None:
        return _say_once("tracing is off: scores are not sent")
    here = trace_id is None and run_id is None
    if here and _current_trace_id() is None:
        return _say_once("there is no recorded trace here: name the one that is scored by its trace_id")
    queued = Score(
        name=name,
        value=value,
        trace_id=_current_trace_id() if here else trace_id,
        observation_id=observation_id,
        user_id=queue.user(user_id or _scope_attribute("user.id")),
        run_id=run_id or _scope_attribute("langfuse.trace.metadata.run"),
        comment=comment,
        metadata=dict(metadata or {}),
        at=at or (_start_of_span() if here else None) or datetime.now(UTC),
    )
    return queue.post(queued, skip={} if recorded and queued.trace_id else {"langfuse": UNRECORDED})


class ScoringClient:
    """A client with the Langfuse SDK's method names; its scores are queued and sent like all others."""

    def score_current_trace(
        self,
        *,
        name: str,
        value: Value,
        comment: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Posted | None:
        """Score the current trace; return None if there is none."""
        return score(name, value, comment=comment, metadata=metadata)

    def score_current_span(
        self,
        *,
        name: str,
        value: Value,
        comment: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Posted | None:
        """Score the current span; return None if there is none."""
        trace = current_trace()
        return score(name, value, observation_id=trace and trace.span_id, comment=comment, metadata=metadata)

    def create_score(
        self,
        *,
        name: str,
        value: Value,
        trace_id: str,
        observation_id: str | None = None,
        comment: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Posted | None:
        """Score a trace, or one of its spans."""
        return score(name, value, trace_id=trace_id, observation_id=observation_id, comment=comment, metadata=metadata)

    def get_trace_url(self, *, trace_id: str | None = None) -> str | None:
        """Return the page of a trace, by default the current one; None until its address is known."""
        wanted = trace_id or _current_trace_id()
        return langfuse.trace_url(wanted) if wanted else None


class NoClient(ScoringClient):
    """The client with tracing off: it logs this once, and does nothing."""

    def __init__(self) -> None:
        logger.warning("tracing is off: scores are not sent")

    def score_current_trace(self, **_: Any) -> None:
        """Do nothing."""

    def score_current_span(self, **_: Any) -> None:
        """Do nothing."""

    def create_score(self, **_: Any) -> None:
        """Do nothing."""

    def get_trace_url(self, *, trace_id: str | None = None) -> None:
        """Return None."""


def _current_trace_id() -> str | None:
    trace = current_trace()
    return trace.trace_id if trace and trace.sampled else None


def _start_of_span() -> datetime | None:
    nanoseconds = getattr(get_span(), "start_time", None)
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC) if nanoseconds else None


def _scope_attribute(name: str) -> str | None:
    value = scope_attributes().get(name)
    return str(value) if value else None


@cache
def _say_once(sentence: str) -> None:
    logger.warning(sentence)


def get_client() -> ScoringClient:
    """Return the scoring client; with tracing off, one that does nothing and logs this once.

    Example:
        >>> import telemetry
        >>> def on_answer(correct: bool) -> None:
        ...     telemetry.get_client().score_current_trace(name="correct", value=correct)
    """
    return pipeline.shared(ScoringClient if pipeline.get(ScoreQueue) else NoClient)
