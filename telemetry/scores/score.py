"""A score on a trace, or on one of its observations."""

from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field

from telemetry.moment import Moment

Value = bool | float | str
DataType = Literal["BOOLEAN", "NUMERIC", "CATEGORICAL"]
_NAMESPACE = UUID("0d2a0f6e-3c5b-5f0e-9a55-6d1f3b8f7c21")


class Score(BaseModel):
    """A score on a trace; without a value, the deletion of one.

    Scores of the same user on the same trace with the same name have the same id, so that a later one replaces an
    earlier one. `at` must be the same too: to Langfuse, a score of another day is another score. Use the trace's time.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    value: Value | None
    trace_id: str | None
    observation_id: str | None = None
    user_id: str | None = Field(default=None, exclude=True)
    run_id: str | None = None
    comment: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    at: Moment = Field(default_factory=lambda: datetime.now(UTC))
    score_id: str = ""

    def model_post_init(self, _: Any) -> None:
        """Set the id, unless the score was read from disk with its id."""
        if not self.score_id:
            judged = (self.trace_id or self.run_id, self.observation_id, self.name, self.user_id)
            object.__setattr__(self, "score_id", str(uuid5(_NAMESPACE, "\x1f".join(part or "" for part in judged))))

    @property
    def data_type(self) -> DataType:
        """The type of the value; without it backends guess."""
        if isinstance(self.value, bool):
            return "BOOLEAN"
        return "CATEGORICAL" if isinstance(self.value, str) else "NUMERIC"
