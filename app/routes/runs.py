"""Runs in the background: asked for, looked at, followed, stopped."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

from fastapi import APIRouter, Header, HTTPException, Query, Request
from fastapi.responses import StreamingResponse

import telemetry
from app.caller import CallerDep
from app.database.records import Thread
from app.routes import turns
from app.runs.opening import missing
from app.runs.records import BackgroundRun
from app.schema import RunInfo, RunList, UserInput

if TYPE_CHECKING:
    from app.runs.runs import Runs

router = APIRouter()

LOOK_EVERY_S = 0.2
# No database counts further.
MOST_EVENTS = 2**31 - 1


@router.post("/{agent_id}/runs", status_code=202)
async def begin(agent_id: str, asked: UserInput, request: Request, caller: CallerDep) -> RunInfo:
    """Accept a run; it goes on without its caller."""
    _, asked = turns.checked(request, agent_id, asked)
    runs, user = _runs(request), caller.acting_for(asked.user_id)
    thread_id = asked.thread_id or str(uuid4())
    await runs.turns.claim(Thread(thread_id, user, agent_id))
    async with runs.turns.held(thread_id):
        await runs.turns.refuse_answer_of_other(thread_id, agent_id)
        run = await runs.submit(agent_id, user, asked.model_copy(update={"thread_id": thread_id}))
    return await _shown(runs, run)


@router.get("/runs")
async def mine(
    request: Request, caller: CallerDep, user_id: str | None = None, most: Annotated[int, Query(ge=1, le=100)] = 20
) -> RunList:
    """Return the user's latest runs."""
    runs = _runs(request)
    found = await runs.records.of_user(caller.acting_for(user_id), most)
    return RunList(runs=[await _shown(runs, run) for run in found])


@router.get("/runs/{run_id}")
async def one(run_id: str, request: Request, caller: CallerDep) -> RunInfo:
    """Return where the run stands."""
    return await _shown(_runs(request), await _found(run_id, request, caller))


@router.get("/runs/{run_id}/events", response_class=StreamingResponse)
async def events(
    run_id: str, request: Request, caller: CallerDep, last_event_id: Annotated[int, Header(ge=0, le=MOST_EVENTS)] = 0
) -> StreamingResponse:
    """Stream the run's events as they happen, those behind the last one that the caller has seen."""
    run = await _found(run_id, request, caller)
    told = _told(_runs(request), run, last_event_id, request.app.state.settings.keepalive_s)
    return StreamingResponse(told, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.post("/runs/{run_id}/cancel")
async def cancel(run_id: str, request: Request, caller: CallerDep) -> dict[str, str]:
    """Stop the run where it stands, in the background or not."""
    runs = request.app.state.runs
    run = await runs.records.run(run_id) if runs else None
    if run is None:
        return await turns.cancel(run_id, request, caller)
    run = await _found(run_id, request, caller)
    if run.is_over:
        return {"run_id": run_id, "status": run.status}
    await runs.cancel(run)
    return {"run_id": run_id, "status": "cancelling"}


def _runs(request: Request) -> "Runs":
    if request.app.state.runs is None:
        raise HTTPException(501, missing(request.app.state.settings))
    return request.app.state.runs


async def _found(run_id: str, request: Request, caller: CallerDep) -> BackgroundRun:
    run = await _runs(request).records.run(run_id)
    if run is None or (caller.user_id and run.user_id != caller.user_id):
        raise HTTPException(404, f"There is no run {run_id}.")
    return run


async def _shown(runs: "Runs", run: BackgroundRun) -> RunInfo:
    made = await runs.records.attempts(run.run_id)
    return RunInfo(
        run_id=run.run_id,
        thread_id=run.thread_id,
        agent=run.agent,
        trace_id=run.trace_id,
        trace_ids=[each.trace_id for each in made if each.trace_id],
        trace_url=telemetry.trace_url(run.trace_id) if run.trace_id and await runs.keeps_trace(run, made) else None,
        status=await runs.status(run),
        error=run.error,
        message=UserInput.model_validate_json(run.asked).message,
        created=datetime.fromtimestamp(run.created, UTC),
    )


async def _told(runs: "Runs", run: BackgroundRun, seen: int, silence_s: float) -> AsyncIterator[str]:
    silent = 0.0
    while True:
        over = run.is_over
        for number, body in await runs.records.events(run.run_id, seen):
            yield f"id: {number}\ndata: {body}\n\n"
            seen, silent = number, 0.0
        if over:
            yield "data: [DONE]\n\n"
            return
        await asyncio.sleep(LOOK_EVERY_S)
        silent += LOOK_EVERY_S
        if silent >= silence_s:
            yield ": alive\n\n"
            silent = 0.0
        run = await runs.records.run(run.run_id) or run
