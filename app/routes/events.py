"""Actions in a front end, as spans that name the thread; the front end needs no key of the backend."""

from fastapi import APIRouter, Request

import telemetry
from app.auth import CallerDep
from app.routes.thread_scope import thread_scope
from app.schema import EventAnswer, FrontendEvent

router = APIRouter()


@router.post("/events", status_code=201)
async def record_event(event: FrontendEvent, request: Request, caller: CallerDep) -> EventAnswer:
    """Record one action of a user."""
    user = caller.acting_for(event.user_id)
    if event.thread_id:
        await request.app.state.turns.find_thread(event.thread_id, user)
    with thread_scope(event.thread_id, user, name=event.name):
        telemetry.event(event.name, **{f"event.{name}": value for name, value in event.about.items()})
    trace = telemetry.current_trace()
    return EventAnswer(trace_id=trace.trace_id if trace and trace.sampled else None)
