"""The parts of Langfuse's public API for sending spans, scoring and reading, on Langfuse's own paths."""

from typing import Annotated, Any, Protocol, TypeVar, overload

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from telemetry.export import otlp
from telemetry.viewer.access import Keys, Parameters
from telemetry.viewer.query import BadQueryError, ObservationQuery, ScoreQuery, observation_cursor, score_cursor
from telemetry.viewer.record import GROUPS, observation_record
from telemetry.viewer.score import GROUPS as SCORE_GROUPS
from telemetry.viewer.score import Score, sentence
from telemetry.viewer.score_queue import ScoreQueue
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Condition, Store

SCORES_LIMIT = 1024 * 1024
INGESTION_LIMIT = 4 * 1024 * 1024

health = APIRouter(prefix="/api/public")
router = APIRouter(prefix="/api/public", dependencies=[Keys, Parameters])


class Events(BaseModel):
    """A batch of an older SDK."""

    batch: list[Any]


Model = TypeVar("Model", bound=BaseModel)


@health.get("/health")
def answer_health() -> dict[str, str]:
    """Return that the viewer is alive."""
    return {"status": "OK", "version": "local viewer"}


@router.get("/projects")
def read_projects() -> dict[str, Any]:
    """Return the only project."""
    organization = {"id": PROJECT, "name": "local viewer"}
    project = {"id": PROJECT, "name": "local viewer", "organization": organization, "metadata": {}}
    return {"data": [project]}


@router.post("/otel/v1/traces")
async def receive_traces(request: Request) -> dict[str, Any]:
    """Store the spans of an OTLP request, all of them or none."""
    body = await read_body(request, otlp.LIMIT)
    headers = request.headers
    await run_in_threadpool(
        _add_spans, _store(request), body, headers.get("content-type", ""), headers.get("content-encoding")
    )
    return {}


@router.post("/scores")
async def receive_scores(request: Request) -> Response:
    """Store one score or a list of them; in a list, valid scores are stored whatever the others are."""
    content = await read_json(request, SCORES_LIMIT)
    add = _add_scores if isinstance(content, list) else _add_score
    return await run_in_threadpool(add, _scores(request), content)


@router.post("/ingestion")
async def receive_events(request: Request) -> Response:
    """Store the scores among the events of an older SDK; any other event is reported as not supported."""
    events = await read_json(request, INGESTION_LIMIT, Events)
    return await run_in_threadpool(_add_events, _scores(request), events.batch)


@router.delete("/scores/{score_id}")
def delete_score(request: Request, score_id: str) -> dict[str, str]:
    """Delete a score."""
    if not _scores(request).delete(score_id):
        raise HTTPException(404, f"There is no score {score_id}.")
    return {"message": "Score deleted"}


@router.get("/v2/observations")
def read_observations(request: Request, query: Annotated[ObservationQuery, Query()]) -> Response:
    """Return a page of the matching observations, newest first."""
    groups = parse_fields(query.fields, set(GROUPS))
    found = _store(request).find_observations(conditions_of(query), query.limit + 1)
    shown = found[: query.limit]
    records = [observation_record(observation, groups, public=public) for observation, public in shown]
    return page_of(records, query.limit, observation_cursor(shown[-1][0]) if len(found) > query.limit else None)


@router.get("/v3/scores")
def read_scores(request: Request, query: Annotated[ScoreQuery, Query()]) -> Response:
    """Return a page of the matching scores, newest first."""
    groups = parse_fields(query.fields, SCORE_GROUPS)
    found = _store(request).find_scores(conditions_of(query), query.limit + 1)
    shown = found[: query.limit]
    records = [score.record(groups) for score in shown]
    return page_of(records, query.limit, score_cursor(shown[-1]) if len(found) > query.limit else None)


async def read_body(request: Request, limit: int) -> bytes:
    """Return a request's body; 413 for one that is larger than the limit."""
    body = bytearray()
    if int(request.headers.get("content-length", "0")) > limit:
        raise _too_large(limit)
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit, {"Connection": "close"})  # the rest of the body may be of any size
    return bytes(body)


@overload
async def read_json(request: Request, limit: int) -> Any: ...
@overload
async def read_json(request: Request, limit: int, model: type[Model]) -> Model: ...
async def read_json(request: Request, limit: int, model: type[BaseModel] | None = None) -> Any:
    """Return a request's JSON, as a model if one is named; refuse invalid JSON with a sentence."""
    # A page of another site can post text/plain without a CORS preflight request.
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await read_body(request, limit)
    if kind != "application/json":
        raise HTTPException(415, "The content type must be application/json.")
    try:
        return model.model_validate_json(body) if model else from_json(body)
    except ValidationError as error:
        raise HTTPException(400, sentence(error)) from error
    except ValueError as error:
        raise HTTPException(400, "The body is not JSON.") from error


def _too_large(limit: int, headers: dict[str, str] | None = None) -> HTTPException:
    return HTTPException(413, f"The body is larger than {limit} bytes; send less at once.", headers)


def _add_spans(store: Store, body: bytes, content_type: str, encoding: str | None) -> None:
    try:
        store.add_spans(otlp.decode(body, content_type, encoding))
    except otlp.TooLarge as error:
        raise HTTPException(413, str(error)) from error
    except otlp.Malformed as error:
        raise HTTPException(400, str(error)) from error


def _add_score(queue: ScoreQueue, content: Any) -> Response:
    try:
        score = Score.model_validate(content)
    except ValidationError as error:
        raise HTTPException(400, sentence(error)) from error
    queue.add([score])
    return JSONResponse({"id": score.id})


def _add_scores(queue: ScoreQueue, content: list[Any]) -> Response:
    scores: list[Score] = []
    errors: list[dict[str, str]] = []
    for each in content:
        try:
            scores.append(Score.model_validate(each))
        except ValidationError as error:
            errors.append({"message": sentence(error)})
    queue.add(scores)
    if errors:
        return JSONResponse({"accepted": len(scores), "rejected": len(errors), "errors": errors}, 207)
    return JSONResponse({"message": "Accepted"}, 202)


def _add_events(queue: ScoreQueue, batch: list[Any]) -> Response:
    scores: list[Score] = []
    successes: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for event in batch:
        given = event if isinstance(event, dict) else {}
        event_id = str(given.get("id", ""))
        try:
            scores.append(_score_of_event(given))
        except ValueError as error:
            message = sentence(error) if isinstance(error, ValidationError) else str(error)
            errors.append({"id": event_id, "status": 400, "message": message})
        else:
            successes.append({"id": event_id, "status": 201})
    queue.add(scores)
    return JSONResponse({"successes": successes, "errors": errors}, 207)


def _score_of_event(event: dict[str, Any]) -> Score:
    if event.get("type") != "score-create":
        raise ValueError("Only score-create is served here; spans come by OTLP, to /api/public/otel/v1/traces.")
    return Score.model_validate(event.get("body"))


def _store(request: Request) -> Store:
    return request.app.state.store


def _scores(request: Request) -> ScoreQueue:
    return request.app.state.scores


class Conditional(Protocol):
    """A query that can be turned into conditions."""

    def conditions(self) -> list[Condition]:
        """Return the conditions; raise `BadQueryError` for an invalid query."""
        ...


def conditions_of(query: Conditional) -> list[Condition]:
    """Return the conditions of a query; refuse an invalid one with a sentence."""
    try:
        return query.conditions()
    except BadQueryError as error:
        raise HTTPException(400, str(error)) from error


def parse_fields(fields: str, known: set[str]) -> set[str]:
    """Return the requested groups of fields; refuse unknown ones."""
    groups = {name.strip() for name in fields.split(",")} - {""}
    if unknown := groups - known:
        raise HTTPException(400, f"Unknown fields {', '.join(sorted(unknown))}: there are {', '.join(sorted(known))}.")
    return groups


def page_of(records: list[Any], limit: int, cursor: str | None) -> Response:
    """Return a page of records, with the cursor of the next one."""
    meta = {"limit": limit} | ({"cursor": cursor} if cursor else {})
    return Response(to_json({"data": records, "meta": meta}), media_type="application/json")
