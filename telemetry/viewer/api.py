"""The part of Langfuse's public API that sends, scores and reads back, on Langfuse's own paths."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from telemetry import otlp
from telemetry.viewer.access import Keys
from telemetry.viewer.record import GROUPS, observation_record
from telemetry.viewer.score import GROUPS as SCORE_GROUPS
from telemetry.viewer.score import Score, sentence
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Store

SCORES_LIMIT = 1024 * 1024

health = APIRouter(prefix="/api/public")
router = APIRouter(prefix="/api/public", dependencies=[Keys])

Name = Annotated[str | None, Query(min_length=1)]
Cursor = Annotated[int, Query(ge=0)]


@health.get("/health")
def answer_health() -> dict[str, str]:
    """Return that the viewer is alive."""
    return {"status": "OK", "version": "local viewer"}


@router.get("/projects")
def read_projects() -> dict[str, Any]:
    """Return the one project there is."""
    organization = {"id": PROJECT, "name": "local viewer"}
    project = {"id": PROJECT, "name": "local viewer", "organization": organization, "metadata": {}}
    return {"data": [project]}


@router.post("/otel/v1/traces")
async def receive_traces(request: Request) -> dict[str, Any]:
    """Keep the spans of an OTLP request, all of them or none."""
    body = await _body(request, otlp.LIMIT)
    headers = request.headers
    await run_in_threadpool(
        _keep_spans, _store(request), body, headers.get("content-type", ""), headers.get("content-encoding")
    )
    return {}


@router.post("/scores")
async def receive_scores(request: Request) -> Response:
    """Keep one score or a list of them; in a list the good ones are kept whatever the others are."""
    body = await _body(request, SCORES_LIMIT)
    try:
        content = from_json(body)
    except ValueError as error:
        raise HTTPException(400, "Send a score, or a list of them, as JSON.") from error
    keep = _keep_scores if isinstance(content, list) else _keep_score
    return await run_in_threadpool(keep, _store(request), content)


@router.delete("/scores/{score_id}")
def delete_score(request: Request, score_id: str) -> dict[str, str]:
    """Forget a score."""
    if not _store(request).delete_score(score_id):
        raise HTTPException(404, f"There is no score {score_id}.")
    return {"message": "Score deleted"}


@router.get("/v2/observations")
def read_observations(
    request: Request,
    trace_id: Annotated[str | None, Query(alias="traceId")] = None,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
    name: str | None = None,
    kind: Annotated[str | None, Query(alias="type")] = None,
    level: str | None = None,
    fields: str = "core,basic",
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = 0,
) -> Response:
    """Return the observations of a trace or a session, newest first, a page at a time."""
    groups = _groups(fields, set(GROUPS))
    where = _where(trace_id=trace_id, session_id=session_id)
    wanted = [
        observation
        for observation in reversed(_store(request).observations(**where, **_given(name=name)))
        if kind in (None, observation.type) and level in (None, observation.level)
    ]
    records = [observation_record(observation, groups) for observation in wanted[cursor : cursor + limit]]
    return _page(records, cursor, limit, len(wanted))


@router.get("/v3/scores")
def read_scores(
    request: Request,
    trace_id: Annotated[str | None, Query(alias="traceId")] = None,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
    score_id: Annotated[str | None, Query(alias="id")] = None,
    observation_id: Annotated[str | None, Query(alias="observationId")] = None,
    name: str | None = None,
    fields: str = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Cursor = 0,
) -> Response:
    """Return the scores of a trace or a session, newest first, a page at a time."""
    groups = _groups(fields, SCORE_GROUPS)
    where = _where(trace_id=trace_id, session_id=session_id, id=score_id)
    wanted = [
        score
        for score in reversed(_store(request).scores(**where))
        if name in (None, score.name) and observation_id in (None, score.observation_id)
    ]
    records = [score.record(groups) for score in wanted[cursor : cursor + limit]]
    return _page(records, cursor, limit, len(wanted))


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    if int(request.headers.get("content-length", "0")) > limit:
        raise _too_large(limit)
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit, {"Connection": "close"})  # nobody knows how much more would come
    return bytes(body)


def _too_large(limit: int, headers: dict[str, str] | None = None) -> HTTPException:
    return HTTPException(413, f"The body is larger than {limit} bytes; send less at once.", headers)


def _keep_spans(store: Store, body: bytes, content_type: str, encoding: str | None) -> None:
    try:
        store.add_spans(otlp.decode(body, content_type, encoding))
    except otlp.TooLarge as error:
        raise HTTPException(413, str(error)) from error
    except otlp.Malformed as error:
        raise HTTPException(400, str(error)) from error


def _keep_score(store: Store, content: Any) -> Response:
    try:
        score = Score.model_validate(content)
    except ValidationError as error:
        raise HTTPException(400, sentence(error)) from error
    store.add_scores([score])
    return JSONResponse({"id": score.id})


def _keep_scores(store: Store, content: list[Any]) -> Response:
    scores: list[Score] = []
    errors: list[dict[str, str]] = []
    for each in content:
        try:
            scores.append(Score.model_validate(each))
        except ValidationError as error:
            errors.append({"message": sentence(error)})
    store.add_scores(scores)
    if errors:
        return JSONResponse({"accepted": len(scores), "rejected": len(errors), "errors": errors}, 207)
    return JSONResponse({"message": "Accepted"}, 202)


def _store(request: Request) -> Store:
    return request.app.state.store


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _where(**values: str | None) -> dict[str, str]:
    if not (given := _given(**values)):
        raise HTTPException(400, "Say which: this viewer reads by traceId or sessionId.")
    return given


def _groups(fields: str, known: set[str]) -> set[str]:
    groups = {name.strip() for name in fields.split(",")} - {""}
    if unknown := groups - known:
        raise HTTPException(400, f"Unknown fields {', '.join(sorted(unknown))}: there are {', '.join(sorted(known))}.")
    return groups


def _page(records: list[Any], cursor: int, limit: int, total: int) -> Response:
    meta: dict[str, Any] = {"limit": limit}
    if cursor + limit < total:
        meta["cursor"] = str(cursor + limit)
    return Response(to_json({"data": records, "meta": meta}), media_type="application/json")
