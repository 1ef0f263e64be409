"""Background runs: submitting, reading, following and cancelling them; and cancelling turns."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

from fastapi import APIRouter, Header, HTTPException, Query, Request
from fastapi.sse import EventSourceResponse

import telemetry
from app.auth import Caller, CallerDep
from app.database.thread_store import CANCELLING, RunRecord, Thread
from app.routes.event_stream import EVENT_STREAM, STREAM_HEADERS, stored_events
from app.routes.turns import LIMITED, resolve_agent, turn_events
from app.runs.lifespan import missing_requirement
from app.runs.store import BackgroundRun
from app.schema import CancelAnswer, RunInfo, RunList, SpanList, UserInput

if TYPE_CHECKING:
    from app.runs.runs import BackgroundRuns

router = APIRouter()

# The largest number that every database can store.
MAX_EVENT_ID = 2**31 - 1
_NO_EVENTS = (
    "There are no stored events of this turn: those of a turn that was sent with on_disconnect=continue are stored "
    "until an hour after its end. Its messages are in the history of its thread."
)


@router.post("/{agent_id}/runs", status_code=202, responses=LIMITED)
async def submit_run(agent_id: str, body: UserInput, request: Request, caller: CallerDep) -> RunInfo:
    """Accept a background run, which continues without its caller."""
    graph, body = resolve_agent(request, agent_id, body)
    runs, user = _runs(request), caller.acting_for(body.user_id)
    thread_id = body.thread_id or str(uuid4())
    async with runs.turns.limits.admit(user) as run_id:
        await runs.turns.get_or_create_thread(Thread(thread_id, user, agent_id))
        async with runs.turns.lock_thread(thread_id):
            await runs.turns.end_lost_turns(thread_id)
            body, replaced = await runs.turns.resolve_replaced(thread_id, body)
            if replaced is None:
                await runs.turns.refuse_answer_to_other_agent(thread_id, agent_id)
                await runs.turns.refuse_unfit_answers(graph, thread_id, body)
            run = await runs.submit(run_id, agent_id, user, body.model_copy(update={"thread_id": thread_id}))
    return await _run_info(runs, run)


@router.get("/runs")
async def list_runs(
    request: Request, caller: CallerDep, user_id: str | None = None, most: Annotated[int, Query(ge=1, le=100)] = 20
) -> RunList:
    """Return the user's latest background runs."""
    runs = _runs(request)
    found = await runs.store.of_user(caller.acting_for(user_id), most)
    return RunList(runs=[await _run_info(runs, run) for run in found])


@router.get("/runs/{run_id}")
async def get_run(run_id: str, request: Request, caller: CallerDep) -> RunInfo:
    """Return the state of the background run."""
    return await _run_info(_runs(request), await _find_run(run_id, request, caller))


@router.get("/runs/{run_id}/events", **EVENT_STREAM)
async def stream_run(
    run_id: str,
    request: Request,
    caller: CallerDep,
    after: Annotated[int, Query(ge=0, le=MAX_EVENT_ID, description="the id of the last event received")] = 0,
    last_event_id: Annotated[int, Header(ge=0, le=MAX_EVENT_ID)] = 0,
) -> EventSourceResponse:
    """Stream the events of a background run, or of a turn that continues without its reader, as they happen."""
    turns, runs = request.app.state.turns, request.app.state.runs
    # A browser that reconnects repeats the address, with a later number in the header.
    after = max(after, last_event_id)
    keepalive_s = request.app.state.settings.keepalive_s
    run = await _find_any_run(run_id, request, caller)
    if isinstance(run, BackgroundRun):
        events = _run_events(runs, run, after, keepalive_s)
    elif last := await turns.events.last_number(run_id):
        events = turn_events(turns, run_id, min(after, last), keepalive_s)
    else:
        raise HTTPException(404, _NO_EVENTS)
    return EventSourceResponse(events, headers=STREAM_HEADERS)


@router.get("/runs/{run_id}/spans")
async def list_spans(run_id: str, request: Request, caller: CallerDep) -> SpanList:
    """Return the tree of the run, a background run or a turn, once it is over: names, times, tokens and failures."""
    turns, runs = request.app.state.turns, request.app.state.runs
    run = await turns.store.get_run(run_id) or (await runs.store.get(run_id) if runs else None)
    if run is None or (caller.user_id and run.user_id != caller.user_id):
        raise HTTPException(404, f"There is no run {run_id}.")
    return SpanList(spans=await turns.outcomes.spans_of(run_id))


@router.post("/runs/{run_id}/cancel")
async def cancel(run_id: str, request: Request, caller: CallerDep) -> CancelAnswer:
    """Cancel the run, a background run or a turn, in whichever process it is."""
    turns, runs = request.app.state.turns, request.app.state.runs
    run = await _find_any_run(run_id, request, caller)
    if isinstance(run, RunRecord):
        return CancelAnswer(run_id=run_id, status=await turns.cancel(run))
    if run.is_over:
        return CancelAnswer(run_id=run_id, status=run.status)
    await runs.cancel(run)
    return CancelAnswer(run_id=run_id, status=CANCELLING)


def _runs(request: Request) -> "BackgroundRuns":
    if request.app.state.runs is None:
        raise HTTPException(501, missing_requirement(request.app.state.settings))
    return request.app.state.runs


async def _find_run(run_id: str, request: Request, caller: Caller) -> BackgroundRun:
    run = await _runs(request).store.get(run_id)
    if run is None or (caller.user_id and run.user_id != caller.user_id):
        raise HTTPException(404, f"There is no run {run_id}.")
    return run


async def _find_any_run(run_id: str, request: Request, caller: Caller) -> BackgroundRun | RunRecord:
    turns, runs = request.app.state.turns, request.app.state.runs
    background_run = await runs.store.get(run_id) if runs else None
    run = background_run or await turns.store.get_run(run_id)
    if run is None or (caller.user_id and run.user_id != caller.user_id):
        raise HTTPException(404, f"There is no run {run_id}.")
    return run


def _run_events(runs: "BackgroundRuns", run: BackgroundRun, after: int, keepalive_s: float) -> AsyncIterator[bytes]:
    async def is_over() -> bool:
        latest = await runs.store.get(run.run_id)
        # Its thread may have been deleted meanwhile.
        return latest is None or latest.is_over

    return stored_events(partial(runs.store.events_after, run.run_id), is_over, after, keepalive_s, runs.availability)


async def _run_info(runs: "BackgroundRuns", run: BackgroundRun) -> RunInfo:
    attempts = await runs.store.attempts_of(run.run_id)
    kept = await runs.keeps_trace(run, attempts)
    return RunInfo(
        run_id=run.run_id,
        thread_id=run.thread_id,
        agent=run.agent,
        trace_id=run.trace_id,
        trace_ids=[attempt.trace_id for attempt in attempts if attempt.trace_id],
        trace_url=telemetry.trace_url(run.trace_id) if run.trace_id and kept else None,
        status=await runs.status(run),
        error=run.error,
        message=UserInput.model_validate_json(run.asked).text,
        created=datetime.fromtimestamp(run.created, UTC),
    )
