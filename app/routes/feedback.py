"""What people think of an answer, as scores on its trace."""

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

import telemetry
from app.caller import CallerDep
from app.database.outcomes import Outcomes
from app.database.records import Run
from app.schema import Feedback, FeedbackAnswer, Vote

router = APIRouter()
# How long an answer waits to say that the backend has the score; on disk it is before.
PATIENCE_S = 1.0


@router.post("/feedback")
async def feedback(given: Feedback, request: Request, caller: CallerDep) -> FeedbackAnswer:
    """Score a run: the same user's next word under the same key replaces this one, null takes it back."""
    user = caller.acting_for(given.user_id)
    run = await request.app.state.turns.records.run(given.run_id)
    if run is None or run.user_id != user:
        raise HTTPException(404, f"There is no run {given.run_id}.")
    with (
        telemetry.scope(session_id=run.thread_id, user_id=user or None, name="feedback"),
        telemetry.span("feedback", kind="EVALUATOR", **{"feedback.run_id": run.run_id, "feedback.key": given.key}),
    ):
        outcomes: Outcomes = request.app.state.turns.outcomes
        kept = await _kept(outcomes, given, run)
        answer = await run_in_threadpool(_score, given, run, user, kept=kept)
        await _remember(outcomes, given, run, kept=kept)
        return answer


async def _kept(outcomes: Outcomes, given: Feedback, run: Run) -> bool:
    """Return whether the run's trace is kept: one that was dropped as ordinary is worth it once somebody judges it."""
    if not (run.trace_id and run.sampled):
        return False
    known = await outcomes.kept(run.run_id)
    if given.score is None:
        return known is not False
    if known is False:
        return await run_in_threadpool(telemetry.bring_back, run.trace_id)
    return await run_in_threadpool(telemetry.decide, run.trace_id, True)


async def _remember(outcomes: Outcomes, given: Feedback, run: Run, *, kept: bool) -> None:
    if given.score is None:
        await outcomes.take_back(run.run_id, given.key)
        return
    vote = Vote(key=given.key, score=given.score, comment=given.comment or None)
    await outcomes.vote(run.run_id, run.thread_id, vote)
    await outcomes.set_kept(run.run_id, kept=kept)


def _score(given: Feedback, run: Run, user: str, *, kept: bool) -> FeedbackAnswer:
    posted = telemetry.score(
        given.key,
        given.score,
        trace_id=run.trace_id,
        recorded=kept,
        user_id=user,
        run_id=run.run_id,
        comment=given.comment or None,
        metadata=given.kwargs,
        at=run.created,
    )
    return FeedbackAnswer(
        trace_id=run.trace_id,
        kept=kept,
        run_id=run.run_id,
        score_id=posted.score.score_id if posted else None,
        places=posted.places(PATIENCE_S) if posted else {"langfuse": "skipped: tracing is off"},
    )
