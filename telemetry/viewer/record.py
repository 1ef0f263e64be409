"""Observations in the format of Langfuse's second observations API: by groups of fields."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from pydantic_core import from_json, to_json

from telemetry.viewer.observation import Observation, text
from telemetry.viewer.settings import PROJECT

Record = dict[str, Any]
EPOCH = datetime.fromtimestamp(0, UTC)


def observation_record(observation: Observation, groups: set[str], *, public: bool) -> Record:
    """Return an observation with its core fields and the requested groups; `public` is that of its trace."""
    record = _core(observation)
    for group in groups & GROUPS.keys():
        record |= GROUPS[group](observation)
    return record | ({"public": public} if "basic" in groups else {})


def _core(observation: Observation) -> Record:
    span = observation.span
    return {
        "id": span.span_id,
        "traceId": span.trace_id,
        "startTime": iso(span.start),
        "endTime": iso(span.end) if span.end else None,
        "projectId": PROJECT,
        "parentObservationId": span.parent_id,
        "type": observation.type,
    }


def _basic(observation: Observation) -> Record:
    return {
        "name": observation.span.name,
        "level": observation.level,
        "statusMessage": observation.message or None,
        "version": observation.version,
        "environment": observation.environment,
        "bookmarked": False,
        "userId": observation.user_id,
        "sessionId": observation.session_id,
        "isRootObservation": observation.is_root,
    }


def _time(observation: Observation) -> Record:
    first = observation.completion_start
    return {
        "completionStartTime": first.isoformat() if first else None,
        "createdAt": iso(observation.span.start),
        "updatedAt": iso(observation.span.end),
    }


def _io(observation: Observation) -> Record:
    return {name: raw(value) for name, value in (("input", observation.input), ("output", observation.output))}


def _metadata(observation: Observation) -> Record:
    return {"metadata": {name: _read(value) for name, value in observation.metadata.items()}}


def _model(observation: Observation) -> Record:
    parameters = observation.model_parameters
    if isinstance(parameters, dict):
        # Langfuse has numbers, booleans and strings as parameters; other values become JSON in a string.
        parameters = {
            name: to_json(value).decode() if isinstance(value, (list, dict)) else value
            for name, value in parameters.items()
        }
    return {"model": observation.model, "modelParameters": parameters}


def _usage(observation: Observation) -> Record:
    usage = {"usageDetails": observation.usage, "costDetails": observation.cost_details}
    # An unknown cost is omitted, because 0 would mean that it was free.
    return usage if observation.cost is None else usage | {"totalCost": observation.cost}


def _metrics(observation: Observation) -> Record:
    return {"latency": observation.latency, "timeToFirstToken": observation.first_token}


def _trace_context(observation: Observation) -> Record:
    return {"tags": observation.tags, "release": observation.release, "traceName": observation.trace_name}


def _prompt(observation: Observation) -> Record:
    name, version = observation.prompt_name, observation.prompt_version
    known = name is not None and version is not None
    prompt_id = str(uuid5(NAMESPACE_OID, f"{name}:{version}")) if known else None
    return {"promptId": prompt_id, "promptName": name, "promptVersion": version}


GROUPS: dict[str, Callable[[Observation], Record]] = {
    "core": _core,
    "basic": _basic,
    "time": _time,
    "io": _io,
    "metadata": _metadata,
    "model": _model,
    "usage": _usage,
    "metrics": _metrics,
    "trace_context": _trace_context,
    "prompt": _prompt,
}


def iso(nanoseconds: int) -> str:
    """Return a time in ISO 8601."""
    return (EPOCH + timedelta(microseconds=nanoseconds // 1000)).isoformat(timespec="microseconds")


def _read(value: Any) -> Any:
    """Return a value of metadata as Langfuse reads it: numbers and booleans in text are such."""
    try:
        return from_json(value, allow_inf_nan=False) if isinstance(value, str) else value
    except ValueError:
        return value


def raw(value: Any) -> str | None:
    """Return a value as text."""
    return None if value is None else text(value)
