"""Score each finished turn with a function."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import format_trace_id

from telemetry import pipeline
from telemetry.internal_errors import handle_internal_errors
from telemetry.scores.queue import ScoreQueue
from telemetry.scores.score import Score, Value


@dataclass(frozen=True)
class FinishedTurn:
    """The data of a turn that `evaluate` passes to the judge."""

    trace_id: str
    run_id: str
    agent: str
    status: str
    question: str
    answer: str
    began: datetime
    seconds: float

    @classmethod
    def of(cls, span: ReadableSpan) -> Self | None:
        """Return the turn of this span, None if it is not the span of a turn."""
        attributes: dict[str, Any] = dict(span.attributes or {})
        if not (span.context and span.start_time and span.end_time and "turn.status" in attributes):
            return None
        return cls(
            trace_id=format_trace_id(span.context.trace_id),
            run_id=attributes.get("langfuse.trace.metadata.run", ""),
            agent=attributes.get("langfuse.trace.name", ""),
            status=attributes["turn.status"],
            question=attributes.get("input.value", ""),
            answer=attributes.get("output.value", ""),
            began=datetime.fromtimestamp(span.start_time / 1e9, UTC),
            seconds=(span.end_time - span.start_time) / 1e9,
        )


Judge = Callable[[FinishedTurn], Value | None]


class Evaluator(SpanProcessor):
    """Scores turns in a separate thread, so that no turn waits for the judge."""

    def __init__(self, name: str, judge: Judge) -> None:
        self._name = name
        self._judge = judge
        self._thread = ThreadPoolExecutor(1, "telemetry-evaluator")

    def on_end(self, span: ReadableSpan) -> None:
        """Submit a recorded turn to the judge."""
        if span.context and span.context.trace_flags.sampled and (turn := FinishedTurn.of(span)):
            self._thread.submit(self._score, turn)

    def shutdown(self) -> None:
        """Wait for the scores that are being computed."""
        self._thread.shutdown()

    def _score(self, turn: FinishedTurn) -> None:
        with handle_internal_errors("evaluate a turn"):
            value, queue = self._judge(turn), pipeline.get(ScoreQueue)
            if value is not None and queue:
                # A separate user, so that it does not replace a person's score of the same name.
                by = f"{__name__} {self._name}"
                ids = {"trace_id": turn.trace_id, "run_id": turn.run_id or None, "user_id": by}
                queue.post(Score(name=self._name, value=value, at=turn.began, **ids))


def evaluate(name: str, judge: Judge) -> None:
    """Score each turn that ends from now on.

    Args:
        name: the name of the scores.
        judge: called with each `FinishedTurn` in a separate thread; returns the score, or None for no score.

    Example:
        >>> import telemetry
        >>> telemetry.evaluate("answered", lambda turn: bool(turn.answer))
    """
    if active := pipeline.active():
        active.provider.add_span_processor(Evaluator(name, judge))
