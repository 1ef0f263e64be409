"""What happens in a front end, as spans of the thread's session: no key of the backend leaves the service for it."""

from fastapi import APIRouter, Request

import telemetry
from app.caller import CallerDep
from app.schema import EventAnswer, FrontendEvent

router = APIRouter()


@router.post("/events", status_code=201)
async def event(happened: FrontendEvent, request: Request, caller: CallerDep) -> EventAnswer:
    """Record one action of a user."""
    user = caller.acting_for(happened.user_id)
    if happened.thread_id:
        await request.app.state.turns.own_or_new(happened.thread_id, user)
    with telemetry.scope(session_id=happened.thread_id, user_id=user or None, name=happened.name):
        telemetry.event(happened.name, **{f"event.{name}": value for name, value in happened.about.items()})
    trace = telemetry.current_trace()
    return EventAnswer(trace_id=trace.trace_id if trace and trace.sampled else None)
