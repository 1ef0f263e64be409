"""A judgement on a trace, or on one observation of it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Value = bool | float | str
DataType = Literal["BOOLEAN", "NUMERIC", "CATEGORICAL"]
# Databases forget the zone; what they keep is UTC.
Moment = Annotated[datetime, AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=UTC))]
_NAMESPACE = UUID("0d2a0f6e-3c5b-5f0e-9a55-6d1f3b8f7c21")


class Score(BaseModel):
    """What somebody thinks of a trace; without a value it is taken back.

    The same user's word on the same thing under the same name has the same id, so that a change of mind replaces it.
    `at` belongs to the id too: Langfuse takes a score of another day for another one. The trace's own time serves.
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
        """Give it its id, unless it comes from the disk and has it."""
        if not self.score_id:
            judged = (self.trace_id or self.run_id, self.observation_id, self.name, self.user_id)
            object.__setattr__(self, "score_id", str(uuid5(_NAMESPACE, "\x1f".join(part or "" for part in judged))))

    @property
    def data_type(self) -> DataType:
        """What kind of value it has; backends guess otherwise."""
        if isinstance(self.value, bool):
            return "BOOLEAN"
        return "CATEGORICAL" if isinstance(self.value, str) else "NUMERIC"
