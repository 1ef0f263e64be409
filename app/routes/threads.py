"""A user's conversations."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.caller import CallerDep
from app.python_repl import forget
from app.schema import ThreadId, ThreadInfo, ThreadList, ThreadRemoved, ThreadState

router = APIRouter(prefix="/threads")

Limit = Annotated[int, Query(ge=1, le=200)]
Before = Annotated[datetime | None, Query(description="the `updated` of the last one seen, for those after it")]


@router.get("")
async def list_threads(request: Request, caller: CallerDep, limit: Limit = 50, before: Before = None) -> ThreadList:
    """Return the caller's threads, the latest first."""
    found = await request.app.state.threads.of_user(caller.acting_for(None), limit, before)
    return ThreadList(threads=[ThreadInfo(**asdict(thread)) for thread in found])


@router.get("/{thread_id}")
async def state(thread_id: ThreadId, request: Request, caller: CallerDep) -> ThreadState:
    """Return where the thread stands: cheap, for those who look again and again."""
    turns, runs = request.app.state.turns, request.app.state.runs
    await turns.own(thread_id, caller.acting_for(None))
    under_way = await runs.records.unfinished(thread_id=thread_id) if runs else []
    run = under_way[0] if under_way else await turns.records.latest(thread_id)
    return ThreadState(thread_id=thread_id, run_id=run and run.run_id, status=run and run.status)


@router.delete("/{thread_id}")
async def remove(thread_id: ThreadId, request: Request, caller: CallerDep) -> ThreadRemoved:
    """Remove the thread with its messages and its files; traces and scores stay where they are."""
    turns = request.app.state.turns
    thread = await turns.own(thread_id, caller.acting_for(None))
    async with turns.held(thread_id):
        if runs := request.app.state.runs:
            await runs.records.forget_thread(thread_id)
        await forget(request.app.state.settings.data_dir, thread_id)
        await request.app.state.threads.remove(thread)
    return ThreadRemoved(thread_id=thread_id)
