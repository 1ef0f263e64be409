"""A user's conversations."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request

from app.auth import CallerDep
from app.schema import ThreadChange, ThreadId, ThreadInfo, ThreadList, ThreadRemoved, ThreadState, WithoutNul
from telemetry.moment import as_utc

router = APIRouter(prefix="/threads")

Limit = Annotated[int, Query(ge=1, le=200)]
Words = Annotated[
    str | None,
    Query(max_length=200, description="only threads whose title, questions or answers contain this text"),
    WithoutNul,
]
Before = Annotated[datetime | None, Query(description="the `updated` of the last thread received, for older ones")]


@router.get("")
async def list_threads(
    request: Request, caller: CallerDep, limit: Limit = 50, before: Before = None, words: Words = None
) -> ThreadList:
    """Return the caller's threads, the latest first."""
    # SQLite compares times as they are written, without their offset.
    before = before and as_utc(before)
    threads = await request.app.state.threads.of_user(caller.acting_for(None), limit, before, words)
    return ThreadList(threads=[ThreadInfo(**asdict(thread)) for thread in threads])


@router.get("/{thread_id}")
async def get_thread(thread_id: ThreadId, request: Request, caller: CallerDep) -> ThreadState:
    """Return the state of the thread: cheap enough to poll."""
    await request.app.state.turns.get_thread(thread_id, caller.acting_for(None))
    return await _state(request, thread_id)


async def _state(request: Request, thread_id: str) -> ThreadState:
    turns, runs = request.app.state.turns, request.app.state.runs
    unfinished = await runs.store.unfinished(thread_id=thread_id) if runs else []
    run = unfinished[0] if unfinished else await turns.versions.latest_run(thread_id)
    return ThreadState(thread_id=thread_id, run_id=run and run.run_id, status=run and run.status)


@router.patch("/{thread_id}")
async def change_thread(thread_id: ThreadId, body: ThreadChange, request: Request, caller: CallerDep) -> ThreadState:
    """Rename the conversation, or show another version of it."""
    turns = request.app.state.turns
    await turns.get_thread(thread_id, caller.acting_for(body.user_id))
    if body.title is not None:
        await request.app.state.threads.rename(thread_id, body.title)
    if body.version is not None:
        async with turns.lock_thread(thread_id):
            await turns.versions.show(thread_id, body.version)
    return await _state(request, thread_id)


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
