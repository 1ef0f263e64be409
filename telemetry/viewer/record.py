"""Observations as Langfuse's second observations API gives them: by groups of fields."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from telemetry.viewer.observation import Observation, text
from telemetry.viewer.settings import PROJECT

Record = dict[str, Any]
EPOCH = datetime.fromtimestamp(0, UTC)


def observation_record(observation: Observation, groups: set[str]) -> Record:
    """Return an observation with its core fields and the asked for groups of others."""
    record = _core(observation)
    for group in groups & GROUPS.keys():
        record |= GROUPS[group](observation)
    return record


def _core(observation: Observation) -> Record:
    span = observation.span
    return {
        "id": span.span_id,
        "traceId": span.trace_id,
        "startTime": _iso(span.start),
        "endTime": _iso(span.end) if span.end else None,
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
        "public": False,
        "userId": observation.user_id,
        "sessionId": observation.session_id,
        "isRootObservation": observation.span.parent_id is None,
    }


def _time(observation: Observation) -> Record:
    first = observation.completion_start
    return {
        "completionStartTime": first.isoformat() if first else None,
        "createdAt": _iso(observation.span.start),
        "updatedAt": _iso(observation.span.end),
    }


def _io(observation: Observation) -> Record:
    return {name: _raw(value) for name, value in (("input", observation.input), ("output", observation.output))}


def _metadata(observation: Observation) -> Record:
    return {"metadata": observation.metadata}


def _model(observation: Observation) -> Record:
    return {"model": observation.model, "modelParameters": observation.model_parameters}


def _usage(observation: Observation) -> Record:
    return {"usageDetails": observation.usage, "costDetails": {}, "totalCost": 0}


def _metrics(observation: Observation) -> Record:
    return {"latency": observation.latency, "timeToFirstToken": observation.first_token}


def _trace_context(observation: Observation) -> Record:
    return {"tags": observation.tags, "release": observation.release, "traceName": observation.trace_name}


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
    "prompt": lambda _: {},
}


def _iso(nanoseconds: int) -> str:
    return (EPOCH + timedelta(microseconds=nanoseconds // 1000)).isoformat(timespec="microseconds")


def _raw(value: Any) -> str | None:
    return None if value is None else text(value)
