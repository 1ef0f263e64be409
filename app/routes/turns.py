"""Talking to an agent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import StreamingResponse
from langgraph.graph.state import CompiledStateGraph
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

import telemetry
from app.agents import DEFAULT_AGENT
from app.caller import CallerDep
from app.complaints import first_complaint
from app.errors import answer
from app.models.models import UnknownModelError
from app.schema import (
    TRACE_ID,
    ChatMessage,
    EndEvent,
    ErrorEvent,
    Figures,
    InterruptEvent,
    MessageEvent,
    StreamInput,
    UserInput,
)
from app.turns import AgentTurn, run_event
from telemetry.span import one_line

router = APIRouter()
Asked = TypeVar("Asked", bound=UserInput)


class TurnResponse(StreamingResponse):
    """The events of a turn, which ends with it, even where nobody came to read a single one."""

    media_type = "text/event-stream"

    def __init__(self, turn: AgentTurn, keepalive_s: float, figures: Callable[[], Figures]) -> None:
        super().__init__(_events(turn, keepalive_s, figures), headers={"Cache-Control": "no-store"})
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._turn.leave()


@router.post("/invoke", response_model=ChatMessage)
@router.post("/{agent_id}/invoke", response_model=ChatMessage)
async def invoke(asked: UserInput, request: Request, caller: CallerDep, agent_id: str = DEFAULT_AGENT) -> Any:
    """Return the last message of the agent's answer."""
    turn = await _begin(request, agent_id, caller.acting_for(asked.user_id), asked)
    leaving = asyncio.create_task(_when_gone(request.receive, turn))
    try:
        last = [_as_message(turn, item) async for item in turn if isinstance(item, MessageEvent | InterruptEvent)]
    finally:
        leaving.cancel()
    if turn.error:
        return answer(500, one_line(turn.error))
    if not last:
        return answer(499, "The turn was cancelled before the agent had answered.")
    return last[-1]


@router.post("/stream", response_class=StreamingResponse)
@router.post("/{agent_id}/stream", response_class=StreamingResponse)
async def stream(
    asked: StreamInput, request: Request, caller: CallerDep, agent_id: str = DEFAULT_AGENT
) -> StreamingResponse:
    """Stream the agent's answer as server-sent events."""
    turn = await _begin(request, agent_id, caller.acting_for(asked.user_id), asked)
    figures = partial(request.app.state.turns.figures, turn, asked.model)
    return TurnResponse(turn, request.app.state.settings.keepalive_s, figures)


@router.post("/runs/{run_id}/cancel")
async def cancel(run_id: str, request: Request, caller: CallerDep) -> dict[str, str]:
    """Stop the run where it stands, in whichever process that is."""
    turns = request.app.state.turns
    run = await turns.records.run(run_id)
    if run is None or (caller.user_id and run.user_id != caller.user_id):
        raise HTTPException(404, f"There is no run {run_id}.")
    return {"run_id": run_id, "status": await turns.cancel(run)}


@router.post("/traces/{trace_id}/keep")
async def keep(trace_id: Annotated[str, Path(pattern=TRACE_ID)], caller: CallerDep) -> dict[str, bool]:
    """Keep this trace even if it was not kept: the front end that began it saw something worth keeping."""
    if not caller.trusted:
        raise HTTPException(403, "Front ends only may keep a trace: send the service's own secret as bearer.")
    return {"kept": await asyncio.to_thread(telemetry.decide, trace_id, True)}


async def _begin(request: Request, agent_id: str, user: str, asked: UserInput) -> AgentTurn:
    graph, asked = checked(request, agent_id, asked)
    return await request.app.state.turns.begin(agent_id, graph, user, asked)


def checked(request: Request, agent_id: str, asked: Asked) -> tuple[CompiledStateGraph, Asked]:
    """Return the agent's graph and what is asked of it, with its options; 404 or 422 for what cannot be."""
    graph = _agent(request, agent_id)
    try:
        request.app.state.models.get(asked.model)
        options = request.app.state.table[agent_id].options.model_validate(asked.agent_config).model_dump()
    except UnknownModelError as error:
        raise HTTPException(422, str(error)) from error
    except ValidationError as error:
        raise HTTPException(422, first_complaint(error.errors(), "agent_config")) from error
    return graph, asked.model_copy(update={"agent_config": options})


def _agent(request: Request, agent_id: str) -> CompiledStateGraph:
    agents = request.app.state.agents
    if agent_id in agents.errors:
        raise HTTPException(503, f"The agent {agent_id} could not be loaded: {agents.errors[agent_id]}")
    if agent_id not in agents.graphs:
        raise HTTPException(404, f"There is no agent {agent_id}; choose one of: {', '.join(agents.graphs)}.")
    return agents.graphs[agent_id]


def _as_message(turn: AgentTurn, item: MessageEvent | InterruptEvent) -> ChatMessage:
    if isinstance(item, MessageEvent):
        return item.content
    trace_id = turn.trace.trace_id if turn.trace else None
    asked = {"interrupt": {"id": item.id, "value": item.value}}
    return ChatMessage(
        type="custom", content=str(item.value), run_id=str(turn.run_id), trace_id=trace_id, custom_data=asked
    )


async def _when_gone(receive: Callable[[], Awaitable[Any]], turn: AgentTurn) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    turn.cancel("disconnect")


async def _events(turn: AgentTurn, keepalive_s: float, figures: Callable[[], Figures]) -> AsyncIterator[str]:
    yield _sse(run_event(turn))
    async for item in turn.listen(keepalive_s):
        yield _sse(item) if item else ": alive\n\n"
    trace_id = turn.trace.trace_id if turn.trace else None
    if turn.error:
        kind, message = type(turn.error).__name__, one_line(turn.error)
        yield _sse(ErrorEvent(error=kind, message=message, trace_id=trace_id))
    url = turn.trace.url if turn.trace and turn.kept else None
    yield _sse(EndEvent(status=turn.status or "failed", kept=turn.kept, trace_url=url, figures=figures()))
    yield "data: [DONE]\n\n"


def _sse(event: Any) -> str:
    return f"data: {event.model_dump_json()}\n\n"
