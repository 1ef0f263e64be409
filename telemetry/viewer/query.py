"""Parse the parameters of the listings of observations and scores into SQL conditions."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, JsonValue, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import from_json, to_json

from telemetry.moment import unix_nano
from telemetry.viewer.observation import Observation
from telemetry.viewer.score import Score
from telemetry.viewer.store import Condition

Kind = Literal["string", "datetime", "number", "boolean", "array"]
# The columns that `filter` may name: what kind of value each has, and its SQL.
Columns = dict[str, tuple[Kind, str]]
EXPERIMENT_COLUMNS: Columns = {
    "id": ("string", "experiment"),
    "name": ("string", "name"),
    "datasetId": ("string", "dataset"),
}
EXPERIMENT_ITEM_COLUMNS: Columns = {
    "experimentId": ("string", "experiment"),
    "experimentName": ("string", "name"),
    "experimentItemId": ("string", "item"),
    "datasetId": ("string", "dataset"),
}
COLUMNS: Columns = {
    "id": ("string", "span_id"),
    "type": ("string", "type"),
    "name": ("string", "name"),
    "traceId": ("string", "trace_id"),
    "parentObservationId": ("string", "parent_id"),
    "startTime": ("datetime", "start"),
    "endTime": ("datetime", "end"),
    "environment": ("string", "environment"),
    "level": ("string", "level"),
    "version": ("string", "version"),
    "userId": ("string", "user_id"),
    "sessionId": ("string", "session_id"),
    "isRootObservation": ("boolean", "root"),
    "traceName": ("string", "trace_name"),
    "traceTags": ("array", "tags"),
    "tags": ("array", "tags"),
    "latency": ("number", "max(end - start, 0) / 1e9"),
    "totalTokens": ("number", "tokens"),
    "tokens": ("number", "tokens"),
    "totalCost": ("number", "cost"),
    "model": ("string", "model"),
    "providedModelName": ("string", "model"),
}
COMPARISONS = {"=", ">", "<", ">=", "<="}
OPERATORS: dict[str, set[str]] = {
    "string": {"=", "contains", "does not contain", "starts with", "ends with"},
    "stringOptions": {"any of", "none of"},
    "arrayOptions": {"any of", "none of", "all of"},
    "datetime": COMPARISONS - {"="},
    "number": COMPARISONS,
    "boolean": {"=", "<>"},
    "null": {"is null", "is not null"},
}
TIMES = TypeAdapter(datetime)
MAX_CONDITIONS = 50
# How many of an array's distinct values are among others.
COUNT_AMONG = "(SELECT count(DISTINCT value) FROM json_each(coalesce({}, '[]')) WHERE {})"
AMONG = "{} IN (SELECT value FROM json_each(?))"

Some = Annotated[str | None, Field(min_length=1)]


class BadQueryError(ValueError):
    """An invalid query; the message says what is wrong."""


def _listed(values: Any) -> Any:
    return [part.strip() for value in values for part in value.split(",")] if isinstance(values, list) else values


def _upper(values: Any) -> Any:
    return [value.upper() for value in _listed(values)] if isinstance(values, list) else values


Word = Annotated[str, Field(min_length=1)]
Words = Annotated[list[Word] | None, BeforeValidator(_listed)]
UpperWords = Annotated[list[Word] | None, BeforeValidator(_upper)]
OBSERVATION_CURSOR = TypeAdapter(tuple[int, str, str])
SCORE_CURSOR = TypeAdapter(tuple[int, str])


class _Query(BaseModel):
    # An unsupported parameter is refused, because a result that ignores it would be wrong.
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class ObservationQuery(_Query):
    """The parameters of `GET v2/observations`."""

    fields: str = "core,basic"
    expand_metadata: str | None = None  # metadata is always whole
    limit: int = Field(default=50, ge=1, le=1000)
    cursor: str | None = None
    parse_io_as_json: bool = False
    trace_id: Some = None
    session_id: Some = None
    user_id: Some = None
    name: Some = None
    type: Some = None
    level: Some = None
    parent_observation_id: str | None = None
    is_root_observation: bool | None = None
    environment: list[Word] | None = None
    from_start_time: datetime | None = None
    to_start_time: datetime | None = None
    version: Some = None
    filter: str | None = None

    def conditions(self) -> list[Condition]:
        """Return the conditions for observations; raise `BadQueryError` for an invalid query."""
        if self.parse_io_as_json:
            raise BadQueryError("parseIoAsJson is not supported: input and output are strings.")
        equal = {
            "trace_id": self.trace_id,
            "session_id": self.session_id,
            "user_id": self.user_id,
            "name": self.name,
            "type": self.type,
            "level": self.level,
            "version": self.version,
            "root": self.is_root_observation,
        }
        found = [
            *_equal(equal),
            *_among({"environment": self.environment}),
            *_between("start", self.from_start_time, self.to_start_time),
        ]
        if self.parent_observation_id is not None:
            found.append(("coalesce(parent_id, '') = ?", [self.parent_observation_id]))
        if self.filter is not None:
            found += _filter(self.filter)
        if self.cursor is not None:
            found.append(("(start, trace_id, span_id) < (?, ?, ?)", _decode(OBSERVATION_CURSOR, self.cursor)))
        return found


class ScoreQuery(_Query):
    """The parameters of `GET v3/scores`."""

    fields: str = ""
    limit: int = Field(default=50, ge=1, le=100)
    cursor: str | None = None
    id: Words = None
    name: Words = None
    source: UpperWords = None
    data_type: UpperWords = None
    environment: Words = None
    config_id: Words = None
    queue_id: Words = None
    value: Words = None
    value_min: FiniteFloat | None = None
    value_max: FiniteFloat | None = None
    trace_id: Words = None
    session_id: Words = None
    observation_id: Words = None
    experiment_id: Words = None
    from_timestamp: datetime | None = None
    to_timestamp: datetime | None = None

    def conditions(self) -> list[Condition]:
        """Return the conditions for scores; raise `BadQueryError` for an invalid query."""
        subjects = [name for name in ("trace_id", "session_id", "experiment_id") if getattr(self, name)]
        if len(subjects) > 1:
            raise BadQueryError("Give one of traceId, sessionId and experimentId.")
        if self.observation_id and not self.trace_id:
            raise BadQueryError("Give the traceId of the observationId as well.")
        among = ("id", "name", "source", "data_type", "environment", "config_id", "queue_id", "observation_id")
        found = [
            *_among({name: getattr(self, name) for name in (*among, *subjects)}),
            *_between("time", self.from_timestamp, self.to_timestamp),
            *self._values(),
        ]
        if self.session_id:
            found.append(("trace_id IS NULL", []))
        if self.cursor is not None:
            found.append(("(time, id) < (?, ?)", _decode(SCORE_CURSOR, self.cursor)))
        return found

    def _values(self) -> list[Condition]:
        kind = self.data_type[0] if self.data_type and len(self.data_type) == 1 else ""
        found: list[Condition] = []
        if (self.value_min, self.value_max) != (None, None):
            if kind != "NUMERIC":
                raise BadQueryError("valueMin and valueMax need dataType=NUMERIC.")
            bounds = ((">=", self.value_min), ("<=", self.value_max))
            found += [(f"number {sql} ?", [bound]) for sql, bound in bounds if bound is not None]
        if self.value:
            found += _among({"value" if kind == "CATEGORICAL" else "number": _typed(self.value, kind)})
        return found


class _ExperimentsQuery(_Query):
    limit: int = Field(default=50, ge=1, le=100)
    score_limit: int = Field(default=50, ge=1, le=50)
    cursor: str | None = None
    from_start_time: datetime
    to_start_time: datetime | None = None
    dataset_id: Words = None
    filter: str | None = None

    def _conditions(self, columns: Columns, among: Mapping[str, Sequence[Any] | None]) -> list[Condition]:
        found = [
            *_among({"dataset": self.dataset_id, **among}),
            *_between("start", self.from_start_time, self.to_start_time),
        ]
        return found + _filter(self.filter, columns) if self.filter is not None else found


class ExperimentQuery(_ExperimentsQuery):
    """The parameters of `GET experiments`."""

    fields: str = "core"
    id: Words = None
    name: Words = None

    def conditions(self) -> list[Condition]:
        """Return the conditions for spans of experiments; raise `BadQueryError` for an invalid query."""
        return self._conditions(EXPERIMENT_COLUMNS, {"experiment": self.id, "name": self.name})

    def after(self) -> list[Any]:
        """Return the latest activity and the id of the experiment before the page."""
        return _decode(SCORE_CURSOR, self.cursor) if self.cursor else [2**63 - 1, ""]


class ExperimentItemQuery(_ExperimentsQuery):
    """The parameters of `GET experiment-items`."""

    fields: str = "core,dataset"
    experiment_id: Words = None
    experiment_name: Words = None
    experiment_item_id: Words = None

    def conditions(self) -> list[Condition]:
        """Return the conditions for the roots of items; raise `BadQueryError` for an invalid query."""
        among = {"experiment": self.experiment_id, "name": self.experiment_name, "item": self.experiment_item_id}
        found = [("item IS NOT NULL", []), *self._conditions(EXPERIMENT_ITEM_COLUMNS, among)]
        if self.cursor is not None:
            found.append(("(start, trace_id, span_id) < (?, ?, ?)", _decode(OBSERVATION_CURSOR, self.cursor)))
        return found


def experiment_cursor(latest: int, experiment: str) -> str:
    """Return the cursor after the experiment with this latest activity."""
    return _encode((latest, experiment))


def observation_cursor(observation: Observation) -> str:
    """Return the cursor after this observation."""
    span = observation.span
    return _encode((span.start, span.trace_id, span.span_id))


def score_cursor(score: Score) -> str:
    """Return the cursor after this score."""
    return _encode((score.time, score.id))


def _equal(values: dict[str, Any]) -> list[Condition]:
    return [(f"{column} = ?", [value]) for column, value in values.items() if value is not None]


def _among(values: dict[str, Sequence[Any] | None]) -> list[Condition]:
    return [(AMONG.format(column), [to_json(among).decode()]) for column, among in values.items() if among is not None]


def _between(column: str, start: datetime | None, end: datetime | None) -> list[Condition]:
    bounds = ((">=", start), ("<", end))
    return [(f"{column} {sql} ?", [unix_nano(bound)]) for sql, bound in bounds if bound is not None]


def _typed(values: Sequence[str], kind: str) -> list[Any]:
    match kind:
        case "CATEGORICAL":
            return list(values)
        case "BOOLEAN" if set(values) <= {"true", "false"}:
            return [float(value == "true") for value in values]
        case "BOOLEAN":
            raise BadQueryError("The value of a BOOLEAN score is true or false.")
        case "NUMERIC":
            return [_number(value) for value in values]
    raise BadQueryError("value needs one dataType: NUMERIC, BOOLEAN or CATEGORICAL.")


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or not isfinite(number):
        raise BadQueryError(f"{value!r:.50} is not a number.")
    return number


def _filter(text: str, columns: Columns = COLUMNS) -> list[Condition]:
    try:
        conditions = from_json(text)
    except ValueError as error:
        raise BadQueryError("filter is not JSON.") from error
    if not isinstance(conditions, list) or len(conditions) > MAX_CONDITIONS:
        raise BadQueryError(f"filter is a list of at most {MAX_CONDITIONS} conditions.")
    return [_condition(each, columns) for each in conditions]


def _condition(given: JsonValue, columns: Columns) -> Condition:
    if not isinstance(given, dict) or given.keys() - {"type", "column", "operator", "value", "key"}:
        raise BadQueryError("A condition of filter is an object of type, column, operator and value.")
    name, kind, operator = (str(given.get(part)) for part in ("column", "type", "operator"))
    if name not in columns:
        raise BadQueryError(f"filter has no column {name:.50}: use one of {', '.join(columns)}.")
    column_kind, sql = columns[name]
    if operator not in OPERATORS.get(kind, set()) or kind.removesuffix("Options") not in (column_kind, "null"):
        raise BadQueryError(f"filter cannot compare {name} as {kind:.50} by {operator:.50}.")
    return _compared(sql, kind, operator, given.get("value"))


def _compared(sql: str, kind: str, operator: str, value: Any) -> Condition:
    match kind:
        case "null":
            return f"{sql} {operator.upper()}", []
        case "number":
            return f"{sql} {operator} ?", [_number(value)]
        case "datetime":
            return f"{sql} {operator} ?", [unix_nano(_moment(value))]
        case "boolean" if isinstance(value, bool):
            return f"{sql} {operator} ?", [value]
        case "stringOptions" if isinstance(value, list) and all(isinstance(each, str) for each in value):
            among = AMONG.format(f"coalesce({sql}, '')")
            return f"NOT {among}" if operator == "none of" else among, [to_json(value).decode()]
        case "arrayOptions" if isinstance(value, list) and all(isinstance(each, str) for each in value):
            found = COUNT_AMONG.format(sql, AMONG.format("value"))
            wanted = {"any of": "> 0", "none of": "= 0", "all of": f"= {len(set(value))}"}[operator]
            return f"{found} {wanted}", [to_json(value).decode()]
        case "string" if isinstance(value, str):
            return _string(f"coalesce({sql}, '')", operator, value)
    raise BadQueryError(f"The value of a {kind} condition has the wrong type.")


def _string(sql: str, operator: str, value: str) -> Condition:
    match operator:
        case "contains":
            return f"instr({sql}, ?) > 0", [value]
        case "does not contain":
            return f"instr({sql}, ?) = 0", [value]
        case "starts with":
            return f"substr({sql}, 1, length(?)) = ?", [value, value]
        case "ends with":
            return f"length({sql}) >= length(?) AND substr({sql}, length({sql}) - length(?) + 1) = ?", [value] * 3
    return f"{sql} = ?", [value]


def _moment(value: Any) -> datetime:
    try:
        return TIMES.validate_python(value)
    except ValidationError as error:
        raise BadQueryError(f"{value!r:.50} is not a time.") from error


def _encode(place: tuple[Any, ...]) -> str:
    return base64.urlsafe_b64encode(to_json(place)).decode().rstrip("=")


def _decode(places: TypeAdapter[Any], cursor: str) -> list[Any]:
    try:
        place = places.validate_json(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except (ValueError, ValidationError) as error:
        raise BadQueryError("cursor was not returned by this API.") from error
    return [min(place[0], 2**63 - 1), *place[1:]]
