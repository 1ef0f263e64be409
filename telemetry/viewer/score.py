"""A score as it is received, and as Langfuse's client reads it."""

import re
from datetime import UTC, datetime
from typing import Any, Literal, Self
from uuid import NAMESPACE_OID, uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from telemetry.viewer.settings import PROJECT

DataType = Literal["NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"]
GROUPS = {"details", "subject", "annotation"}
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")


def _now() -> datetime:
    return datetime.now(UTC)


class Score(BaseModel):
    """A score on a trace, one of its observations, a session, or the run of a dataset."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    id: str = Field(default="", max_length=200)
    trace_id: str | None = Field(default=None, min_length=1)
    session_id: str | None = Field(default=None, min_length=1)
    observation_id: str | None = Field(default=None, min_length=1)
    dataset_run_id: str | None = Field(default=None, min_length=1)
    name: str = Field(min_length=1)
    value: FiniteFloat | str
    data_type: DataType | None = None
    comment: str | None = None
    metadata: Any = None
    environment: str = "default"
    source: Literal["API", "ANNOTATION", "EVAL"] = "API"
    config_id: str | None = None
    queue_id: str | None = None
    timestamp: AwareDatetime = Field(default_factory=_now, ge=EARLIEST, lt=LATEST)

    @property
    def time(self) -> int:
        """The timestamp in Unix nanoseconds."""
        return int(self.timestamp.timestamp()) * 10**9 + self.timestamp.microsecond * 1000

    @property
    def shown(self) -> float | str | bool:
        """The value in a readable form: booleans as such, numbers without trailing zeros."""
        if self.data_type == "BOOLEAN":
            return bool(self.value)
        return int(self.value) if isinstance(self.value, float) and self.value.is_integer() else self.value

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        number = not isinstance(self.value, str)
        self.data_type = self.data_type or ("NUMERIC" if number else "CATEGORICAL")
        if not (self.trace_id or self.session_id or self.dataset_run_id):
            raise ValueError("a score needs a traceId or a sessionId, or a datasetRunId")
        if self.observation_id and not self.trace_id:
            raise ValueError("a score of an observation needs its traceId as well")
        if number != (self.data_type in ("NUMERIC", "BOOLEAN")):
            raise ValueError(f"a {self.data_type} score needs a {'text' if number else 'number'} as its value")
        if self.data_type == "BOOLEAN" and self.value not in (0, 1):
            raise ValueError("the value of a BOOLEAN score must be 0 or 1")
        if not ENVIRONMENT.fullmatch(self.environment):
            raise ValueError("an environment is 1 to 40 of a-z, 0-9, - and _ and does not begin with langfuse")
        if not self.id:
            # A request that is sent again because its response was lost must not create a second score.
            given = self.model_dump_json(
                exclude={"id"} if "timestamp" in self.model_fields_set else {"id", "timestamp"}
            )
            self.id = str(uuid5(NAMESPACE_OID, given))
        return self

    def record(self, groups: set[str]) -> dict[str, Any]:
        """Return the score in the API's format, with the requested groups of fields."""
        core = self.model_dump(
            mode="json",
            by_alias=True,
            include={"id", "name", "data_type", "source", "environment", "timestamp"},
        )
        core |= {"projectId": PROJECT, "createdAt": core["timestamp"], "updatedAt": core["timestamp"]}
        core["value"] = bool(self.value) if self.data_type == "BOOLEAN" else self.value
        if "details" in groups:
            core |= {"comment": self.comment, "configId": self.config_id, "metadata": self.metadata}
        if "subject" in groups:
            core["subject"] = self._subject()
        if "annotation" in groups:
            core |= {"authorUserId": None, "queueId": self.queue_id}
        return core

    def _subject(self) -> dict[str, Any]:
        if self.observation_id:
            return {"kind": "observation", "id": self.observation_id, "traceId": self.trace_id}
        if self.trace_id:
            return {"kind": "trace", "id": self.trace_id}
        if self.session_id:
            return {"kind": "session", "id": self.session_id}
        return {"kind": "experiment", "id": self.dataset_run_id}


def sentence(error: ValidationError) -> str:
    """Return what is wrong with a score, in one sentence."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}." if where else f"{message[:1].upper()}{message[1:]}."
