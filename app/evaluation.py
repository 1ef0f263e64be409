"""An automatic evaluator, as an example: a rule where others would ask a model."""

from telemetry import FinishedTurn

# What an answer says that is none.
EXCUSES = ("I have no rule for that", "I cannot help", "I can't help")


def answered(turn: FinishedTurn) -> bool | None:
    """Whether a finished turn gave an answer; None for one that somebody stopped or that waits for a person."""
    if turn.status in ("cancelled", "waiting"):
        return None
    return turn.status == "completed" and bool(turn.answer.strip()) and not any(e in turn.answer for e in EXCUSES)
