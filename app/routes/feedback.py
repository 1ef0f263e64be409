"""Feedback on an answer, as scores on its trace."""

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

import telemetry
from app.auth import CallerDep
from app.database.outcomes import Outcomes
from app.database.thread_store import RunRecord
from app.routes.thread_scope import thread_scope
from app.schema import Feedback, FeedbackAnswer, Vote
from telemetry.span import link_to

router = APIRouter()
# How long to wait for the backend before responding that the score is queued on disk.
MAX_WAIT_S = 1.0


@router.post("/feedback")
async def feedback(feedback: Feedback, request: Request, caller: CallerDep) -> FeedbackAnswer:
    """Score a run: the same user's next score under the same key replaces this one, null deletes it."""
    user = caller.acting_for(feedback.user_id)
    run = await request.app.state.turns.store.get_run(feedback.run_id)
    if run is None or run.user_id != user:
        raise HTTPException(404, f"There is no run {feedback.run_id}.")
    attributes = {"feedback.run_id": run.run_id, "feedback.key": feedback.key}
    with (
        thread_scope(run.thread_id, user, name="feedback", run_id=run.run_id),
        telemetry.span("feedback", kind="EVALUATOR", **attributes) as span,
    ):
        for link in link_to(run.trace):
            span.add_link(link.context)
        outcomes: Outcomes = request.app.state.turns.outcomes
        kept = await _keep_trace(outcomes, feedback, run)
        answer = await run_in_threadpool(_score, feedback, run, user, kept=kept)
        if feedback.score is None:
            await outcomes.delete_vote(run.run_id, feedback.key)
        else:
            vote = Vote(key=feedback.key, score=feedback.score, comment=feedback.comment or None)
            await outcomes.save_vote(run.run_id, run.thread_id, vote)
            await outcomes.set_kept(run.run_id, kept=kept)
        return answer


async def _keep_trace(outcomes: Outcomes, feedback: Feedback, run: RunRecord) -> bool:
    """Keep the trace of a rated run, even if it was dropped; return whether it is kept."""
    if not (run.trace_id and run.sampled):
        return False
    known = await outcomes.is_kept(run.run_id)
    if feedback.score is None:
        return known is not False
    restored = await run_in_threadpool(telemetry.restore_trace, run.trace_id)
    return restored or known is not False


def _score(feedback: Feedback, run: RunRecord, user: str, *, kept: bool) -> FeedbackAnswer:
    posted = telemetry.score(
        feedback.key,
        feedback.score,
        trace_id=run.trace_id,
        recorded=kept,
        user_id=user,
        run_id=run.run_id,
        comment=feedback.comment or None,
        metadata=feedback.kwargs,
        at=run.created,
    )
    return FeedbackAnswer(
        trace_id=run.trace_id,
        kept=kept,
        run_id=run.run_id,
        score_id=posted.score.score_id if posted else None,
        places=posted.places(MAX_WAIT_S) if posted else {"langfuse": "skipped: tracing is off"},
    )
