"""A user's conversations."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request

from app.auth import CallerDep
from app.schema import ThreadId, ThreadInfo, ThreadList, ThreadRemoved, ThreadState
from telemetry.moment import as_utc

router = APIRouter(prefix="/threads")

Limit = Annotated[int, Query(ge=1, le=200)]
Before = Annotated[datetime | None, Query(description="the `updated` of the last thread received, for older ones")]


@router.get("")
async def list_threads(request: Request, caller: CallerDep, limit: Limit = 50, before: Before = None) -> ThreadList:
    """Return the caller's threads, the latest first."""
    # SQLite compares times as they are written, without their offset.
    before = before and as_utc(before)
    threads = await request.app.state.threads.of_user(caller.acting_for(None), limit, before)
    return ThreadList(threads=[ThreadInfo(**asdict(thread)) for thread in threads])


@router.get("/{thread_id}")
async def get_thread(thread_id: ThreadId, request: Request, caller: CallerDep) -> ThreadState:
    """Return the state of the thread: cheap enough to poll."""
    turns, runs = request.app.state.turns, request.app.state.runs
    await turns.get_thread(thread_id, caller.acting_for(None))
    unfinished = await runs.store.unfinished(thread_id=thread_id) if runs else []
    run = unfinished[0] if unfinished else await turns.store.latest_run(thread_id)
    return ThreadState(thread_id=thread_id, run_id=run and run.run_id, status=run and run.status)


@router.delete("/{thread_id}")
async def delete_thread(thread_id: ThreadId, request: Request, caller: CallerDep) -> ThreadRemoved:
    """Delete the thread with its messages and its files; traces and scores remain."""
    turns = request.app.state.turns
    thread = await turns.get_thread(thread_id, caller.acting_for(None))
    async with turns.lock_thread(thread_id):
        try:
            await request.app.state.threads.delete(thread)
        except OSError as error:
            sentence = "Some of the thread's files cannot be removed, so it was not deleted: contact the operator."
            raise HTTPException(500, sentence) from error
    return ThreadRemoved(thread_id=thread_id)
