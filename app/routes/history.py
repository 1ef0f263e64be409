"""What was said on a thread."""

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from langchain_core.messages import BaseMessage

import telemetry
from app.caller import CallerDep
from app.database.outcomes import Outcome, Outcomes
from app.database.records import Run
from app.messages import to_chat
from app.routes.files import known
from app.schema import ChatHistory, ChatMessage, Figures, FileInfo, HistoryInput, InterruptEvent, TurnInfo, Vote
from app.turns import unknown_thread

router = APIRouter()


@router.post("/history")
@router.post("/{agent_id}/history")
async def history(asked: HistoryInput, request: Request, caller: CallerDep, agent_id: str | None = None) -> ChatHistory:
    """Return the thread's messages, each with its run and trace, its turns, and what it waits for."""
    turns, agents = request.app.state.turns, request.app.state.agents
    thread = await turns.own(asked.thread_id, caller.acting_for(asked.user_id))
    runs = await turns.records.of_thread(asked.thread_id)
    agent = runs[-1].agent if runs else thread.agent
    graph = agents.graphs.get(agent_id or agent)
    if graph is None:
        raise unknown_thread(asked.thread_id)
    state = await graph.aget_state({"configurable": {"thread_id": asked.thread_id}})
    shown = await _shown(turns.outcomes, runs, asked.thread_id)
    return ChatHistory(
        messages=list(_told(state.values.get("messages", []), runs)),
        agent=agent,
        trace_urls={turn.trace_id: turn.trace_url for turn in shown if turn.trace_id and turn.trace_url},
        turns=shown,
        waiting=[InterruptEvent(id=each.id, value=each.value) for each in state.interrupts],
        files=[
            FileInfo(**known(file))
            for file in await request.app.state.files.of_thread(thread.thread_id, thread.user_id)
        ],
    )


async def _shown(outcomes: Outcomes, runs: Sequence[Run], thread_id: str) -> list[TurnInfo]:
    known, votes = await outcomes.of_thread(thread_id), await outcomes.votes_of(thread_id)
    asked = await outcomes.asked_in(thread_id)
    return [_turn(run, known.get(run.run_id), votes.get(run.run_id, []), asked.get(run.run_id, [])) for run in runs]


def _turn(run: Run, outcome: Outcome | None, votes: list[Vote], asked: list[Any]) -> TurnInfo:
    kept = run.sampled and (outcome is None or outcome.kept)
    return TurnInfo(
        run_id=run.run_id,
        trace_id=run.trace_id,
        trace_url=telemetry.trace_url(run.trace_id) if kept and run.trace_id else None,
        status=run.status,
        error=outcome.error if outcome else None,
        began=run.created,
        asked=asked,
        figures=outcome.figures if outcome else Figures(),
        votes=votes,
    )


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
