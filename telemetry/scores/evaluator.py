"""Scores that nobody gives: what a function thinks of each turn that ends."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import format_trace_id

from telemetry import provider
from telemetry.failures import contained
from telemetry.scores import desk
from telemetry.scores.score import Score, Value


@dataclass(frozen=True)
class FinishedTurn:
    """What an evaluator is told of a turn."""

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
        """Return what the span tells of a turn, None for one of anything else."""
        known: dict[str, Any] = dict(span.attributes or {})
        if not (span.context and span.start_time and span.end_time and "turn.status" in known):
            return None
        return cls(
            trace_id=format_trace_id(span.context.trace_id),
            run_id=known.get("langfuse.trace.metadata.run", ""),
            agent=known.get("langfuse.trace.name", ""),
            status=known["turn.status"],
            question=known.get("input.value", ""),
            answer=known.get("output.value", ""),
            began=datetime.fromtimestamp(span.start_time / 1e9, UTC),
            seconds=(span.end_time - span.start_time) / 1e9,
        )


Judge = Callable[[FinishedTurn], Value | None]


class Evaluator(SpanProcessor):
    """Scores turns in a thread of its own, so that no turn waits for its judge."""

    def __init__(self, name: str, judge: Judge) -> None:
        self._name = name
        self._judge = judge
        self._thread = ThreadPoolExecutor(1, "telemetry-evaluator")

    def on_end(self, span: ReadableSpan) -> None:
        """Have a turn judged; what is not recorded is not."""
        if span.context and span.context.trace_flags.sampled and (turn := FinishedTurn.of(span)):
            self._thread.submit(self._score, turn)

    def shutdown(self) -> None:
        """Wait for the judgements under way."""
        self._thread.shutdown()

    def _score(self, turn: FinishedTurn) -> None:
        with contained("evaluate a turn"):
            value, open_desk = self._judge(turn), desk.current()
            if value is not None and open_desk:
                # Its word and a person's of the same name stand beside each other.
                by = f"{__name__} {self._name}"
                ids = {"trace_id": turn.trace_id, "run_id": turn.run_id or None, "user_id": by}
                open_desk.post(Score(name=self._name, value=value, at=turn.began, **ids))


def evaluate(name: str, judge: Judge) -> None:
    """Have each turn that ends from now on scored under this name by what `judge` returns; None is no score."""
    if active := provider.pipeline():
        active.provider.add_span_processor(Evaluator(name, judge))
