"""The messages and turns of a thread."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from langchain_core.messages import BaseMessage

import telemetry
from app.auth import CallerDep
from app.database.branches import on_branch
from app.database.outcomes import Outcome
from app.database.thread_store import RunRecord
from app.files import File
from app.messages import to_chat_message
from app.questions import interrupt_event
from app.routes.files import file_fields
from app.schema import ChatHistory, ChatMessage, Figures, FileInfo, HistoryInput, TurnInfo, Vote
from app.turns import no_such_thread
from app.versions import Conversation

router = APIRouter()


@router.post("/history")
@router.post("/{agent_id}/history")
async def history(body: HistoryInput, request: Request, caller: CallerDep, agent_id: str = "") -> ChatHistory:
    """Return the thread's messages, each with its run and trace, its turns, and its open questions."""
    turns, thread_id = request.app.state.turns, body.thread_id
    thread = await turns.get_thread(thread_id, caller.acting_for(body.user_id))
    conversation = await turns.versions.conversation(thread_id)
    runs = conversation.runs
    agent = runs[-1].agent if runs else thread.agent
    graph = request.app.state.agents.graphs.get(agent_id or agent)
    if graph is None:
        raise no_such_thread(thread_id)
    graph = on_branch(graph, thread_id, conversation.branch)
    state = await graph.aget_state({"configurable": {"thread_id": thread_id}})
    # Of a run that has begun meanwhile, the state may have messages already: they are not those of the run before.
    conversation = await turns.versions.conversation_on(thread_id, conversation.branch)
    runs = conversation.runs
    outcomes = await turns.outcomes.of_thread(thread_id)
    votes = await turns.outcomes.votes_of(thread_id)
    questions = await turns.outcomes.questions_of(thread_id)
    message_runs = await turns.outcomes.messages_of(thread_id)
    turn_infos = [
        _turn_info(
            run,
            outcomes.get(run.run_id),
            votes.get(run.run_id, []),
            questions.get(run.run_id, []),
            conversation.versions.get(run.run_id, []),
        )
        for run in runs
    ]
    files = await request.app.state.files.of_thread(thread.thread_id, thread.user_id)
    return ChatHistory(
        messages=list(_messages(state.values.get("messages", []), runs, message_runs)),
        agent=agent,
        trace_urls={turn.trace_id: turn.trace_url for turn in turn_infos if turn.trace_id and turn.trace_url},
        turns=turn_infos,
        waiting=[interrupt_event(interrupt) for interrupt in state.interrupts],
        files=[FileInfo(**file_fields(file), run_id=_run_of(file, conversation)) for file in files],
    )


def _run_of(file: File, conversation: Conversation) -> str | None:
    """Return the run that produced the file, or with whose question it was uploaded: of its versions the shown one."""
    for run in conversation.all_runs:
        if file.created <= run.created:
            versions = conversation.versions_of(run.run_id)
            return next((shown.run_id for shown in conversation.runs if shown.run_id in versions), run.run_id)
        if run.ended is None or file.created <= run.ended:
            return run.run_id
    return None


def _turn_info(
    run: RunRecord, outcome: Outcome | None, votes: list[Vote], questions: list[Any], versions: Sequence[str]
) -> TurnInfo:
    kept = run.sampled and (outcome is None or outcome.kept)
    return TurnInfo(
        run_id=run.run_id,
        trace_id=run.trace_id,
        trace_url=telemetry.trace_url(run.trace_id) if kept and run.trace_id else None,
        status=run.status,
        error=outcome.error if outcome else None,
        began=run.created,
        resumed=run.resumed,
        versions=list(versions),
        asked=questions,
        figures=outcome.figures if outcome else Figures(),
        votes=votes,
    )


def _messages(
    messages: Sequence[BaseMessage], runs: Sequence[RunRecord], run_ids: Mapping[str, str]
) -> Iterator[ChatMessage]:
    """Yield the messages with their runs, and the answers to questions, which are no messages of the thread."""
    by_id = {run.run_id: run for run in runs}
    # A running run, or one that an earlier release stored, has the messages from its position on.
    by_position = [run for run in runs if run.run_id not in set(run_ids.values())]
    shown_ids = {run_ids.get(message.id or "") for message in messages}
    answers = [run for run in runs if run.resumed and (run in by_position or run.run_id in shown_ids)]
    run: RunRecord | None = None
    for position, message in enumerate(messages):
        while by_position and by_position[0].position <= position:
            run = by_position.pop(0)
        run = by_id.get(run_ids.get(message.id or "", ""), run)
        while run and answers and answers[0].created <= run.created:
            yield _answer_to_question(answers.pop(0))
        if shown := to_chat_message(message, run.run_id if run else None, run.trace_id if run else None):
            yield shown
    yield from map(_answer_to_question, answers)


def _answer_to_question(run: RunRecord) -> ChatMessage:
    return ChatMessage(type="human", content=run.message, run_id=run.run_id, trace_id=run.trace_id)
