"""Turns: asking an agent, and streaming its answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import count
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, format_sse_event
from langgraph.graph.state import CompiledStateGraph
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

import telemetry
from app.agents import DEFAULT_AGENT
from app.auth import CallerDep
from app.errors import describe_error, error_response
from app.models.models import UnknownModelError
from app.schema import (
    TRACE_ID,
    ChatMessage,
    EndEvent,
    ErrorAnswer,
    ErrorEvent,
    Figures,
    InterruptEvent,
    MessageEvent,
    StreamEvent,
    StreamInput,
    UserInput,
)
from app.turns import AgentTurn, run_event
from telemetry.span import one_line

router = APIRouter()
Input = TypeVar("Input", bound=UserInput)

KEEPALIVE = format_sse_event(comment="alive")
DONE = format_sse_event(data_str="[DONE]")
# Without this header, nginx buffers a response until it is complete.
STREAM_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
LIMITED: dict[int | str, dict[str, Any]] = {
    429: {
        "model": ErrorAnswer,
        "description": "The user has reached a limit of the service",
        "headers": {
            "Retry-After": {"description": "seconds until it may be sent again", "schema": {"type": "integer"}}
        },
    }
}
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
    return TurnResponse(turn, request.app.state.settings.keepalive_s, partial(turns.figures, turn, body.model))


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
    if turn.error:
        trace_id = turn.trace.trace_id if turn.trace else None
        yield encode(ErrorEvent(error=type(turn.error).__name__, message=one_line(turn.error), trace_id=trace_id))
    url = turn.trace.url if turn.trace and turn.kept else None
    end = EndEvent(
        status=turn.status or "failed", stored=turn.settled, kept=turn.kept, trace_url=url, figures=figures()
    )
    yield encode(end)
    yield DONE
