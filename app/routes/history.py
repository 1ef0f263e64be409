"""What was said on a thread."""

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from langchain_core.messages import BaseMessage

import telemetry
from app.caller import CallerDep
from app.messages import to_chat
from app.records import Run
from app.schema import ChatHistory, ChatMessage, HistoryInput
from app.turns import unknown_thread

router = APIRouter()


@router.post("/history")
@router.post("/{agent_id}/history")
async def history(asked: HistoryInput, request: Request, caller: CallerDep, agent_id: str | None = None) -> ChatHistory:
    """Return the thread's messages, each with its run and trace."""
    turns, agents = request.app.state.turns, request.app.state.agents
    thread = await turns.records.thread(asked.thread_id)
    if thread is None or thread.user_id != caller.acting_for(asked.user_id):
        raise unknown_thread(asked.thread_id)
    graph = agents.graphs.get(agent_id or thread.agent)
    if graph is None:
        raise unknown_thread(asked.thread_id)
    state = await graph.aget_state({"configurable": {"thread_id": asked.thread_id}})
    runs = await turns.records.of_thread(asked.thread_id)
    messages = list(_told(state.values.get("messages", []), runs))
    return ChatHistory(messages=messages, trace_urls=_urls(runs))


def _told(messages: Sequence[BaseMessage], runs: Sequence[Run]) -> Iterator[ChatMessage]:
    # A run's messages are those from its position on, up to the next run's.
    waiting = list(runs)
    run: Run | None = None
    for position, message in enumerate(messages):
        while waiting and waiting[0].position <= position:
            run = waiting.pop(0)
            if run.resumed:
                yield _human(run)
        if shown := to_chat(message, run.run_id if run else None, run.trace_id if run else None):
            yield shown
    yield from (_human(run) for run in waiting if run.resumed)


def _human(run: Run) -> ChatMessage:
    return ChatMessage(type="human", content=run.message, run_id=run.run_id, trace_id=run.trace_id)


def _urls(runs: Sequence[Run]) -> dict[str, str]:
    sampled = [run.trace_id for run in runs if run.sampled and run.trace_id]
    return {trace_id: url for trace_id in sampled if (url := telemetry.trace_url(trace_id))}
