"""Turns: asking an agent, and streaming its answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import count
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from langgraph.graph.state import CompiledStateGraph
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

import telemetry
from app.agents import DEFAULT_AGENT
from app.auth import CallerDep
from app.errors import describe_error, error_response
from app.models.models import UnknownModelError
from app.recording import Recording
from app.routes.event_stream import DONE, EVENT_STREAM, KEEPALIVE, STREAM_HEADERS, stored_events
from app.schema import (
    TRACE_ID,
    ChatMessage,
    ErrorAnswer,
    Figures,
    InterruptEvent,
    MessageEvent,
    StreamEvent,
    StreamInput,
    UserInput,
)
from app.turns import AgentTurn, Turns, ending_events, run_event
from telemetry.span import one_line

router = APIRouter()
Input = TypeVar("Input", bound=UserInput)

LIMITED: dict[int | str, dict[str, Any]] = {
    429: {
        "model": ErrorAnswer,
        "description": "The user has reached a limit of the service",
        "headers": {
            "Retry-After": {"description": "seconds until it may be sent again", "schema": {"type": "integer"}}
        },
    }
}
# How often a reader looks whether the turn's process has died: with every so many polls.
LOST_POLLS = 10
TURN_STREAM = EVENT_STREAM | {"responses": EVENT_STREAM["responses"] | LIMITED}


class TurnResponse(EventSourceResponse):
    """The events of a turn, which ends with the response, even if no event is read."""

    def __init__(self, turn: AgentTurn, keepalive_s: float, figures: Callable[[], Figures]) -> None:
        super().__init__(_events(turn, keepalive_s, figures), headers=STREAM_HEADERS)
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._turn.leave()


@router.post("/invoke", response_model=ChatMessage, responses=LIMITED)
@router.post("/{agent_id}/invoke", response_model=ChatMessage, responses=LIMITED)
async def invoke(body: UserInput, request: Request, caller: CallerDep, agent_id: str = DEFAULT_AGENT) -> Any:
    """Return the last message of the agent's answer."""
    graph, body = resolve_agent(request, agent_id, body)
    turn = await request.app.state.turns.begin(agent_id, graph, caller.acting_for(body.user_id), body)
    disconnect = asyncio.create_task(_cancel_on_disconnect(request.receive, turn))
    last: MessageEvent | InterruptEvent | None = None
    try:
        async for event in turn:
            # Other nodes may still answer after one has asked.
            if isinstance(event, InterruptEvent) or (isinstance(event, MessageEvent) and not turn.waits):
                last = event
    finally:
        disconnect.cancel()
    if turn.error:
        return error_response(500, one_line(turn.error))
    if last is None:
        return error_response(499, "The turn was cancelled before the agent had answered.")
    if isinstance(last, MessageEvent):
        return last.content
    return ChatMessage(
        type="custom",
        content=str(last.value),
        run_id=str(turn.run_id),
        trace_id=turn.trace.trace_id if turn.trace else None,
        custom_data={"interrupt": {"id": last.id, "value": last.value}},
    )


@router.post("/stream", **TURN_STREAM)
@router.post("/{agent_id}/stream", **TURN_STREAM)
async def stream(
    body: StreamInput, request: Request, caller: CallerDep, agent_id: str = DEFAULT_AGENT
) -> EventSourceResponse:
    """Stream the agent's answer as server-sent events."""
    graph, body = resolve_agent(request, agent_id, body)
    turns = request.app.state.turns
    turn = await turns.begin(agent_id, graph, caller.acting_for(body.user_id), body)
    keepalive_s = request.app.state.settings.keepalive_s
    if recording := turns.recordings.get(str(turn.run_id)):
        return EventSourceResponse(_recorded_events(recording, turns, keepalive_s), headers=STREAM_HEADERS)
    return TurnResponse(turn, keepalive_s, partial(turns.figures, turn, body.model))


@router.post("/traces/{trace_id}/keep")
async def keep_trace(trace_id: Annotated[str, Path(pattern=TRACE_ID)], caller: CallerDep) -> dict[str, bool]:
    """Keep this trace even if it was dropped, because the front end that started it has seen an error."""
    if not caller.trusted:
        raise HTTPException(403, "Only front ends may keep a trace: send the service's own secret as the bearer token.")
    return {"kept": await asyncio.to_thread(telemetry.keep_trace, trace_id, True)}


def resolve_agent(request: Request, agent_id: str, body: Input) -> tuple[CompiledStateGraph, Input]:
    """Return the agent's graph, and the input with its options validated; 404, 422 or 503 where that fails."""
    agents = request.app.state.agents
    if agent_id in agents.errors:
        raise HTTPException(503, f"The agent {agent_id} could not be loaded: {agents.errors[agent_id]}")
    if agent_id not in agents.graphs:
        raise HTTPException(404, f"There is no agent {agent_id}; choose one of: {', '.join(agents.graphs)}.")
    try:
        request.app.state.models.get(body.model)
        options = request.app.state.agent_table[agent_id].options.model_validate(body.agent_config).model_dump()
    except UnknownModelError as error:
        raise HTTPException(422, str(error)) from error
    except ValidationError as error:
        raise HTTPException(422, describe_error(error.errors(), "agent_config")) from error
    return agents.graphs[agent_id], body.model_copy(update={"agent_config": options})


async def _cancel_on_disconnect(receive: Callable[[], Awaitable[Any]], turn: AgentTurn) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    turn.cancel("disconnect")


async def _events(turn: AgentTurn, keepalive_s: float, figures: Callable[[], Figures]) -> AsyncIterator[bytes]:
    ids = count(1)

    def encode(event: StreamEvent) -> bytes:
        return format_sse_event(data_str=event.model_dump_json(), id=str(next(ids)))

    yield encode(run_event(turn))
    async for event in turn.listen(keepalive_s):
        yield encode(event) if event else KEEPALIVE
    for event in ending_events(turn, figures):
        yield encode(event)
    yield DONE


async def _recorded_events(recording: Recording, turns: Turns, keepalive_s: float) -> AsyncIterator[bytes]:
    last = 0
    async for event in recording.listen(keepalive_s):
        if event is None:
            yield KEEPALIVE
            continue
        yield format_sse_event(data_str=event.body, id=str(event.number) if event.number else None)
        last = event.number or last
    async for piece in turn_events(turns, str(recording.turn.run_id), last, keepalive_s):
        yield piece


def turn_events(turns: Turns, run_id: str, last_event_id: int, keepalive_s: float) -> AsyncIterator[bytes]:
    """Yield the stored events of a turn after this one, to the last, in whichever process it is."""
    polls = count()

    async def are_complete() -> bool:
        if await turns.events.has_ended(run_id):
            return True
        if next(polls) % LOST_POLLS == LOST_POLLS - 1:
            await turns.end_events_if_lost(run_id)
        return False

    return stored_events(
        partial(turns.events.after, run_id), are_complete, last_event_id, keepalive_s, turns.availability
    )
