"""An example of an automatic evaluator, which uses a rule instead of a model."""

from telemetry import FinishedTurn

# Phrases of an unhelpful answer.
EXCUSES = ("I have no rule for that", "I cannot help", "I can't help")


def answered(turn: FinishedTurn) -> bool | None:
    """Return whether the turn gave an answer; None for one that was cancelled or waits for a person."""
    if turn.status in ("cancelled", "waiting"):
        return None
    return (
        turn.status == "completed"
        and bool(turn.answer.strip())
        and not any(excuse in turn.answer for excuse in EXCUSES)
    )
