"""Runs that outlive their request, their process and a crash: queued, retried and recovered by DBOS.

DBOS stores the runs and which process executes each. LangGraph's checkpoints store the progress of a run: the graph
runs within one step of the engine, and resumes from its last checkpoint.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

from dbos import DBOS, DBOSConfig
from dbos import error as engine
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot
from sqlalchemy.exc import SQLAlchemyError

import telemetry
from app.database.availability import Availability
from app.database.branches import with_saver
from app.database.guarded_saver import GuardedSaver
from app.database.sqlite import check_file
from app.database.thread_store import CANCELLING, Thread
from app.runs.attempt import AttemptExecution
from app.runs.dbos_internals import limit_waits
from app.runs.store import (
    AttemptRecord,
    BackgroundRun,
    BackgroundRunStore,
    EngineUnusableError,
    StaleAttemptError,
)
from app.schema import EndEvent, ErrorEvent, RunStatus, UserInput
from app.turns import AgentTurn, Turns, linked_to, run_event, run_record, tokens_of, turn_config
from telemetry import Resumed, TraceRef
from telemetry.context import Scope
from telemetry.export.formats.marks import SHOWN_ON_ROOT
from telemetry.heartbeat import Heartbeat, LostTurn, attach_span, close_as_lost, written
from telemetry.otel.local_root import local_root
from telemetry.span import one_line
from telemetry.span_tree import follow_turn
from telemetry.turn_root import TurnRoot, queued_line

logger = logging.getLogger(__name__)

WORKFLOW = "run"
# One release may finish the runs of another, as long as their checkpoints and tool answers are compatible.
VERSION = "1"
# How often an agent may fail, and how many attempts it may have in all.
MAX_FAILURES = 3
MAX_ATTEMPTS = 6
FIRST_WAIT_S = 1.0
# How many runs of one user one process executes at once, for each agent.
PER_USER = 2
POLL_S = 0.5
# A process counts as dead after this many missed heartbeats.
MISSED_HEARTBEATS = 3
# How long a caller waits for the engine, which itself waits for an unavailable database.
ENGINE_PATIENCE_S = 1.0


class AgentFailedError(Exception):
    """An attempt failed and may be repeated."""


@dataclass
class BackgroundRuns:
    """The background runs of this process, and of processes that died."""

    store: BackgroundRunStore
    turns: Turns
    graphs: dict[str, CompiledStateGraph]
    availability: Availability
    engine_url: str
    engine_file: Path | None
    heartbeat_s: float
    timeout_s: float
    concurrency: int
    single_process: bool
    executor: str = field(default_factory=lambda: uuid4().hex)
    _under_way: dict[str, AgentTurn] = field(default_factory=dict)
    _cancelled_early: set[str] = field(default_factory=set)
    _watcher: asyncio.Task[None] | None = None
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _stopping: bool = False
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        # An attempt waits for the database; a request fails at once.
        self._attempt_store = self.store.retrying(self.availability.retry)

    async def submit(self, run_id: str, agent: str, user: str, request: UserInput) -> BackgroundRun:
        """Accept a run and return it; it is completed whatever happens to this process."""
        await self.start()
        trace, root = telemetry.current_trace(), TurnRoot(local_root(telemetry.get_span()), None)
        run = BackgroundRun(
            run_id=run_id,
            thread_id=request.thread_id or str(uuid4()),
            user_id=user,
            agent=agent,
            asked=request.model_dump_json(),
            created=time.time(),
            trace_id=trace.trace_id if trace else None,
            span_id=trace.span_id if trace else None,
            sampled=bool(trace and trace.sampled),
        )
        try:
            await self.store.add(run)
        except BaseException:
            # It may have been stored before the database failed.
            self._in_background(self._attempt_store.discard(run.run_id))
            raise
        with telemetry.scope(session_id=run.thread_id, user_id=user or None, agent=agent, run_id=run.run_id):
            root.write("input", request.text)
            root.write("output", queued_line(run.run_id))
            Heartbeat(self.heartbeat_s).beat("queued")
        # The run is accepted, even if the engine cannot be notified now.
        await asyncio.wait({self._in_background(self._enqueue(run))}, timeout=ENGINE_PATIENCE_S)
        return run

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def keeps_trace(self, run: BackgroundRun, attempts: Sequence[AttemptRecord]) -> bool:
        """Return whether the run's trace is kept, as far as that is known."""
        kept = await self.turns.outcomes.is_kept(run.run_id)
        if kept is None and attempts:
            return attempts[0].sampled
        return run.sampled and kept is not False

    async def has_unfinished_run(self, thread_id: str) -> bool:
        """Return whether the thread has a run that has not ended."""
        return bool(await self.store.unfinished(thread_id=thread_id))

    async def status(self, run: BackgroundRun) -> RunStatus:
        """Return the run's status; `lost` while its process sends no heartbeats and no other has taken over."""
        if run.status not in ("running", CANCELLING):
            return cast("RunStatus", run.status)
        silent = await self.store.silent_executors(time.time() - MISSED_HEARTBEATS * self.heartbeat_s)
        return "lost" if run.owner in silent else "running"

    async def cancel(self, run: BackgroundRun) -> None:
        """Cancel the run, in whichever process it is."""
        await self.start()
        await self.store.request_cancel(run.run_id)
        if not await self._has_live_attempt(run):
            with suppress(StaleAttemptError):
                await self._end_run(await self._revoke(run), "cancelled")
        if turn := self._under_way.get(run.run_id):
            turn.cancel("cancel")
        cancelling = self._in_background(DBOS.cancel_workflow_async(run.run_id))
        await asyncio.wait({cancelling}, timeout=ENGINE_PATIENCE_S)

    async def _has_live_attempt(self, run: BackgroundRun) -> bool:
        """Return whether an attempt will end the run; after a failed one the next may not have started yet."""
        if run.status == "queued" or await self.status(run) == "lost":
            return False
        attempts = await self.store.attempts_of(run.run_id)
        return not attempts or attempts[-1].attempt < run.attempt or attempts[-1].status != "failed"

    async def resume(self) -> None:
        """Start the engine if runs wait for it, or other processes may have accepted some."""
        if not self.single_process or await self.store.unfinished():
            await self.start()

    async def start(self) -> None:
        """Start the engine, once; take over from processes that died. Raise `EngineUnusableError` if that fails."""
        async with self._starting:
            if self._watcher:
                return
            await self.store.beat_executor(self.executor)
            try:
                await self._start_engine()
            except Exception as error:
                await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
                if self.availability.is_outage(error):
                    raise
                raise EngineUnusableError(error) from error
            self._watcher = asyncio.create_task(self._watch_executors())

    async def _start_engine(self) -> None:
        if self.engine_file:
            await asyncio.to_thread(check_file, self.engine_file)
        # Migrating may take long and wait for other processes. The rest has to start on this loop: the engine
        # runs our functions on the loop that launched it, which in a thread would be one of its own.
        await asyncio.to_thread(DBOS.migrate, self.engine_url)
        self._launch()
        for agent in self.graphs:
            await DBOS.register_queue_async(
                f"runs-{agent}",
                worker_concurrency=self.concurrency,
                partition_worker_concurrency=min(PER_USER, self.concurrency),
                polling_interval_sec=POLL_S,
                on_conflict="always_update",
            )
        for run in await self.store.unfinished(status="queued"):
            await self._enqueue(run)
            await self._end_if_cancelled(run)
        if self.single_process:
            await self._take_over_dead(time.time())

    async def stop(self) -> None:
        """Stop the engine; unfinished runs continue in another process, or in the next one."""
        self._stopping = True
        if self._watcher:
            self._watcher.cancel()
            try:
                await self.store.release_executor(self.executor)
            except SQLAlchemyError as error:
                logger.warning("other processes take over later: %s", one_line(error))
            await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    # --- engine ---

    def _launch(self) -> None:
        config: DBOSConfig = {
            "name": "agent-service",
            "system_database_url": self.engine_url,
            "executor_id": self.executor,
            "application_version": VERSION,
            "log_level": "ERROR",  # at lower levels it logs each end of a run
            "enable_otlp": False,
        }
        limit_waits()
        DBOS(config=config)
        logging.getLogger("dbos").addFilter(self._is_unexpected)

        @DBOS.step(
            name="attempt",
            preemptible=True,
            retries_allowed=True,
            max_attempts=MAX_FAILURES,
            interval_seconds=FIRST_WAIT_S,
            backoff_rate=2.0,
        )
        async def attempt(run_id: str) -> None:
            await self._attempt(run_id)

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
        async def run(run_id: str) -> None:
            try:
                await attempt(run_id)
            except engine.DBOSWorkflowCancelledError:
                await self._end_cancelled_between_attempts(run_id)
                raise
            except Exception as error:  # noqa: BLE001 - whatever the error, the run has to end
                await self._give_up(run_id, error)

        DBOS.launch()

    def _is_unexpected(self, record: logging.LogRecord) -> bool:
        """Return whether to log what the engine says: not a cancelled run, and of an outage one line."""
        error = record.exc_info[1] if record.exc_info else None
        if error and self.availability.is_outage(error):
            record.msg, record.args = f"the engine cannot store the end of a run yet: {one_line(error)}", ()
            record.exc_info = record.exc_text = None
        return not isinstance(error, engine.DBOSAwaitedWorkflowCancelledError)

    async def _enqueue(self, run: BackgroundRun) -> None:
        await DBOS.enqueue_workflow_with_options_async(
            {
                "workflow_name": WORKFLOW,
                "queue_name": f"runs-{run.agent}",
                "workflow_id": run.run_id,
                "queue_partition_key": run.user_id or "-",
                "workflow_timeout": self.timeout_s,
                "app_version": VERSION,
            },
            run.run_id,
        )

    # --- dead processes ---

    async def _watch_executors(self) -> None:
        while True:
            try:
                await self.store.beat_executor(self.executor)
                # During an outage of the database, no process could store its heartbeats.
                if self.availability.usable_for_s > MISSED_HEARTBEATS * self.heartbeat_s:
                    await self._take_over_dead(time.time() - MISSED_HEARTBEATS * self.heartbeat_s)
            except SQLAlchemyError as error:
                if not self.availability.is_outage(error):
                    logger.warning("cannot look for the runs of dead processes: %s", one_line(error))
            await asyncio.sleep(self.heartbeat_s)

    async def _take_over_dead(self, since: float) -> None:
        for executor, beat in (await self.store.silent_executors(since, self.executor)).items():
            if not await self.store.take_over(executor, beat):
                continue
            for run in await self.store.unfinished(owner=executor):
                with suppress(StaleAttemptError):
                    await self._end_if_cancelled(await self._revoke(run))
            for left in await DBOS.list_workflows_async(status="PENDING", executor_id=executor, load_input=False):
                await DBOS.resume_workflow_async(left.workflow_id, queue_name=left.queue_name)
            await self.store.remove_executor(executor)

    async def _revoke(self, run: BackgroundRun) -> BackgroundRun:
        taken = await self.store.revoke(run)
        await self._close_lost_attempts(taken, await self.store.attempts_of(run.run_id))
        return taken

    async def _end_if_cancelled(self, run: BackgroundRun) -> None:
        """End a run that was cancelled, or timed out, while no process executed it."""
        workflow = await DBOS.get_workflow_status_async(run.run_id)
        if workflow and workflow.status == "CANCELLED":
            with suppress(StaleAttemptError):
                await self._end_run(run, *self._cancelled_status(run))

    def _cancelled_status(self, run: BackgroundRun) -> tuple[RunStatus, str | None]:
        if time.time() - run.created > self.timeout_s:
            return "failed", f"TimeoutError: the run took longer than {self.timeout_s:g} s"
        return "cancelled", None

    async def _give_up(self, run_id: str, error: Exception) -> None:
        """End a run whose attempts failed before they could end it themselves."""
        with suppress(StaleAttemptError):
            run = await self._attempt_store.begin_attempt(run_id, self.executor)
            await self._close_lost_attempts(run, await self._attempt_store.attempts_of(run_id))
            await self._end_run(run, "failed", one_line(getattr(error, "errors", [error])[-1]))

    async def _close_lost_attempts(self, run: BackgroundRun, earlier: Sequence[AttemptRecord]) -> None:
        """End the attempts and spans of dead processes; the next attempt does what is missing here."""
        for number, dead in enumerate(earlier, 1):
            if dead.status == "running" and dead.attempt < run.attempt:
                if dead.trace:
                    await asyncio.to_thread(close_as_lost, _lost(run, dead, dead.trace, number))
                await self._attempt_store.end_attempt(dead, "lost")

    async def _end_cancelled_between_attempts(self, run_id: str) -> None:
        """End a run that was cancelled between two attempts."""
        run = await self._attempt_store.get(run_id)
        if run and not run.is_over:
            with suppress(StaleAttemptError):
                await self._end_run(await self._revoke(run), *self._cancelled_status(run))

    # --- attempts ---

    async def _attempt(self, run_id: str) -> None:
        """Run the agent to the end of the run; the engine repeats an attempt that raises.

        The engine may cancel this coroutine at any time, and more than once: the attempt finishes its writes first.
        """
        attempt, cancelled = asyncio.create_task(self._run_attempt(run_id)), False
        while not attempt.done():
            try:
                await asyncio.wait({attempt})
            except asyncio.CancelledError:
                cancelled = True
                self._cancel_attempt(run_id)
        self._cancelled_early.discard(run_id)
        try:
            attempt.result()
        except StaleAttemptError:
            if not cancelled:
                run = await self._attempt_store.get(run_id)
                if run and not run.is_over:
                    # Another process executes the run: no end or error of this attempt may reach the engine.
                    await asyncio.Event().wait()
        if cancelled:
            raise asyncio.CancelledError

    def _cancel_attempt(self, run_id: str) -> None:
        """Cancel the attempt, or make it end as soon as its agent would start."""
        if turn := self._under_way.get(run_id):
            turn.cancel("shutdown" if self._stopping else "cancel")
        else:
            self._cancelled_early.add(run_id)

    async def _run_attempt(self, run_id: str) -> None:
        run = await self._attempt_store.begin_attempt(run_id, self.executor)
        earlier = await self._attempt_store.attempts_of(run_id)
        await self._close_lost_attempts(run, earlier)
        if len(earlier) >= MAX_ATTEMPTS:
            await self._end_run(run, "failed", f"the run was begun {len(earlier)} times and never ended")
        elif run.status == CANCELLING:
            await self._end_run(run, "cancelled")
        else:
            await self._execute(run, earlier)

    async def _execute(self, run: BackgroundRun, earlier: Sequence[AttemptRecord]) -> None:
        request = UserInput.model_validate_json(run.asked)
        versions, retry = self.turns.versions, self.availability.retry
        replaced = await retry(lambda: versions.replaced_run(run.thread_id, request))
        graph = await retry(lambda: versions.begin(run.run_id, self.graphs[run.agent], run.thread_id, replaced))
        fence = self.store.fence(run)
        graph = with_saver(graph, lambda saver: GuardedSaver(saver, self.availability, fence))
        state = await graph.aget_state({"configurable": {"thread_id": run.thread_id}})
        with linked_to(replaced):
            turn = self._create_turn(run, request, earlier)
        await self._begin_attempt(run, turn, state, request, first=not earlier)
        if replaced:
            await retry(lambda: versions.show_branch_of(run.thread_id, run.run_id))
        execution = AttemptExecution(
            graph,
            turn_config(turn, run.agent, _thread(run), request),
            request,
            state,
            run=run,
            store=self._attempt_store,
            heartbeat_s=self.heartbeat_s,
        )
        follow_turn(turn.trace)
        turn.start(execution.work)
        self._under_way[run.run_id] = turn
        if run.run_id in self._cancelled_early:
            self._cancel_attempt(run.run_id)
        try:
            await self._store_events(run, turn)
        finally:
            if self._under_way.get(run.run_id) is turn:  # not a later attempt's
                del self._under_way[run.run_id]
        await self._end_attempt(run, turn, execution, earlier)

    def _create_turn(self, run: BackgroundRun, request: UserInput, earlier: Sequence[AttemptRecord]) -> AgentTurn:
        before = earlier[-1] if earlier else None
        with attach_span(None if before else run.trace):
            turn = AgentTurn(
                run.agent,
                run_id=UUID(run.run_id),
                session_id=run.thread_id,
                user_id=run.user_id or None,
                message=request.text,
                price=self.turns.price_of(request.model),
                resumes=Resumed(run.run_id, before.trace, round(time.time() - before.beat, 1)) if before else None,
            )
        turn.span.set_attribute("turn.attempt", len(earlier) + 1)
        if before is None and run.trace:
            turn.span.set_attribute(SHOWN_ON_ROOT, ["input"])  # since the run was queued
        return turn

    async def _begin_attempt(
        self, run: BackgroundRun, turn: AgentTurn, state: StateSnapshot, request: UserInput, *, first: bool
    ) -> None:
        trace, now = turn.trace, time.time()
        ids = {"trace_id": trace.trace_id, "span_id": trace.span_id, "sampled": trace.sampled} if trace else {}
        try:
            await self._attempt_store.add_attempt(AttemptRecord(run.run_id, run.attempt, now, now, **ids))
            if first:
                record = run_record(turn, run.agent, _thread(run), request, state)
                await self.availability.retry(lambda: self.turns.store.begin_run(record))
            await self._attempt_store.append_event(run, run_event(turn).model_dump_json())
        except BaseException as error:
            turn.refuse(error)
            raise

    async def _store_events(self, run: BackgroundRun, turn: AgentTurn) -> None:
        try:
            async for item in turn:
                await self._attempt_store.append_event(run, item.model_dump_json())
        except StaleAttemptError:
            turn.cancel("fenced")
        await turn.ended()

    async def _end_attempt(
        self, run: BackgroundRun, turn: AgentTurn, execution: AttemptExecution, earlier: Sequence[AttemptRecord]
    ) -> None:
        status = turn.status or "failed"
        await self.turns.save_spans(turn)
        # If the process is killed from here on, another one ends its attempt, whose end is not stored yet.
        await asyncio.to_thread(written)
        await self._attempt_store.check_current(run)
        await self._attempt_store.end_attempt(run, status, kept=turn.kept)
        await self.availability.retry(lambda: self.turns.limits.record(run.run_id, tokens_of(turn)))
        if turn.cause == "shutdown":
            # The service stops: another process continues the run.
            raise StaleAttemptError(run.run_id)
        error = one_line(turn.error) if turn.error else None
        if status == "cancelled":
            status, error = self._cancelled_status(run)
        failures = sum(attempt.status == "failed" for attempt in earlier) + 1
        if status == "failed" and turn.status == "failed" and failures < MAX_FAILURES:
            logger.warning("run %s failed and is retried: %s", run.run_id, error)
            raise AgentFailedError(error)
        await execution.settle(turn)
        # The run points to the trace of its first attempt.
        kept = earlier[0].sampled if earlier else turn.kept

        async def save_outcome() -> None:
            await self.turns.save_outcome(turn, execution.request, kept=kept)
            await self.turns.outcomes.save_messages(run.run_id, run.thread_id, execution.new_ids)

        await self.availability.retry(save_outcome)
        await self._end_run(run, status, error)

    async def _end_run(self, run: BackgroundRun, status: Any, error: str | None = None) -> None:
        if error:
            kind, separator, _ = error.partition(": ")
            event = ErrorEvent(error=kind if separator else "Failed", message=error, trace_id=run.trace_id)
            await self._attempt_store.append_event(run, event.model_dump_json())
        attempts, retry = await self._attempt_store.attempts_of(run.run_id), self.availability.retry
        kept = await retry(lambda: self.keeps_trace(run, attempts))
        await self._attempt_store.append_event(run, EndEvent(status=status, kept=kept).model_dump_json())
        # The thread's history first: after a kill, unfinished writes are repeated.
        await retry(lambda: self.turns.store.end_run(run.run_id, status))
        await self._attempt_store.end(run, status, error)
        checkpoints = await retry(lambda: self.turns.versions.checkpoint_thread_of(run.thread_id, run.run_id))
        self.turns.pruning.prune_later(checkpoints)


def _thread(run: BackgroundRun) -> Thread:
    return Thread(run.thread_id, run.user_id, run.agent)


def _lost(run: BackgroundRun, dead: AttemptRecord, trace: TraceRef, number: int) -> LostTurn:
    return LostTurn(
        trace=trace,
        parent=run.trace if run.trace_id == trace.trace_id else None,
        scope=Scope(session_id=run.thread_id, user_id=run.user_id or None, agent=run.agent, run_id=run.run_id),
        message=UserInput.model_validate_json(run.asked).text,
        began=dead.began,
        last_sign=dead.beat,
        attempt=number,
    )
