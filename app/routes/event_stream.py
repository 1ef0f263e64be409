"""Streams of server-sent events: how each ends, stays open while nothing happens, and is read from the database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from app.database.availability import Availability

KEEPALIVE = format_sse_event(comment="alive")
DONE = format_sse_event(data_str="[DONE]")
# Without this header, nginx buffers a response until it is complete.
STREAM_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
# Not `response_class=EventSourceResponse`: FastAPI would treat the endpoint as a generator, whose stream starts before
# a busy thread or an unknown agent can be refused.
EVENT_STREAM: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {
        200: {
            "description": "Events, each with a JSON object as its data; `[DONE]` is the data of the last one",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
}
POLL_INTERVAL_S = 0.2


async def stored_events(
    after: Callable[[int], Awaitable[Sequence[tuple[int, str]]]],
    are_complete: Callable[[], Awaitable[bool]],
    last_event_id: int,
    keepalive_s: float,
    availability: Availability,
) -> AsyncIterator[bytes]:
    """Yield the stored events after this one, as they are stored, to the last.

    `after` returns the events after a number, `are_complete` whether no more will be stored.
    """
    silent_s = 0.0
    while True:
        is_over, found = False, None
        try:
            # Read before the events: those of a run that is over are complete.
            is_over = await are_complete()
            found = await after(last_event_id)
        except Exception as error:
            # The stream stays open meanwhile.
            if not availability.is_outage(error):
                raise
        for number, body in found or ():
            yield format_sse_event(data_str=body, id=str(number))
            last_event_id, silent_s = number, 0.0
        if is_over and found is not None:
            yield DONE
            return
        await asyncio.sleep(POLL_INTERVAL_S)
        silent_s += POLL_INTERVAL_S
        if silent_s >= keepalive_s:
            yield KEEPALIVE
            silent_s = 0.0
