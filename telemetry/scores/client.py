"""What code calls to score: one function, and a client with the names of the Langfuse SDK's methods."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from telemetry import langfuse
from telemetry.context import stamps
from telemetry.scores import desk
from telemetry.scores.desk import Posted
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
    """Score a trace or a run, the current trace without any id; None where there is nothing to score.

    It is on disk when this returns. A later score of the same user and name on the same thing replaces it, and a value
    of None takes it back; `at` is then the same as before, such as the time of what is judged. What was not `recorded`
    is nothing to Langfuse, and the answer says so.
    """
    if (open_desk := desk.current()) is None:
        return _say_once("tracing is off: scores go nowhere")
    here = trace_id is None and run_id is None
    if here and _current() is None:
        return _say_once("there is no recorded trace here: name the one that is scored by its trace_id")
    given = Score(
        name=name,
        value=value,
        trace_id=_current() if here else trace_id,
        observation_id=observation_id,
        user_id=open_desk.user(user_id or _stamped("user.id")),
        run_id=run_id or _stamped("langfuse.trace.metadata.run"),
        comment=comment,
        metadata=dict(metadata or {}),
        at=at or (_began() if here else None) or datetime.now(UTC),
    )
    return open_desk.post(given, skip={} if recorded and given.trace_id else {"langfuse": UNRECORDED})


class ScoringClient:
    """Scores what is being traced; made when first asked for, and its scores take the way of all others."""

    def score_current_trace(
        self,
        *,
        name: str,
        value: Value,
        comment: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Posted | None:
        """Score the current trace; None outside of any."""
        return score(name, value, comment=comment, metadata=metadata)

    def score_current_span(
        self,
        *,
        name: str,
        value: Value,
        comment: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Posted | None:
        """Score the current span; None outside of any."""
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
        """Score any trace, or an observation of it."""
        return score(name, value, trace_id=trace_id, observation_id=observation_id, comment=comment, metadata=metadata)

    def get_trace_url(self, *, trace_id: str | None = None) -> str | None:
        """Return the page of a trace, of the current one without an id; None until it is known."""
        wanted = trace_id or _current()
        return langfuse.trace_url(wanted) if wanted else None


class NoClient(ScoringClient):
    """The client where tracing is off: it does nothing, and has said so."""

    def __init__(self) -> None:
        logger.warning("tracing is off: scores go nowhere")

    def score_current_trace(self, **_: Any) -> None:
        """Do nothing."""

    def score_current_span(self, **_: Any) -> None:
        """Do nothing."""

    def create_score(self, **_: Any) -> None:
        """Do nothing."""

    def get_trace_url(self, *, trace_id: str | None = None) -> None:
        """Return that there is none."""


def _current() -> str | None:
    trace = current_trace()
    return trace.trace_id if trace and trace.sampled else None


def _began() -> datetime | None:
    nanoseconds = getattr(get_span(), "start_time", None)
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC) if nanoseconds else None


def _stamped(name: str) -> str | None:
    value = stamps().get(name)
    return str(value) if value else None


@cache
def _say_once(sentence: str) -> None:
    logger.warning(sentence)


_client: ScoringClient | None = None


def get_client() -> ScoringClient:
    """Return the scoring client; one that does nothing while tracing is off, and says so once."""
    global _client
    kind = ScoringClient if desk.current() else NoClient
    if type(_client) is not kind:
        _client = kind()
    return _client
