"""Runs that outlive their request, their process and a crash: queued, retried and recovered by DBOS.

DBOS knows which runs there are and who works on them. How far a run is, LangGraph's checkpoints know: the graph runs
within one step of the engine, and begins again where its last checkpoint is.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

from dbos import DBOS, DBOSConfig
from dbos import error as engine
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot
from sqlalchemy.exc import SQLAlchemyError

import telemetry
from app.database.records import STOPPING, Thread
from app.runs.fenced_saver import FencedSaver
from app.runs.records import AttemptRecord, BackgroundRun, Fenced, RunRecords
from app.runs.running import Running
from app.schema import EndEvent, ErrorEvent, RunStatus, UserInput
from app.turns import AgentTurn, Turns, config_of, run_event, run_of
from telemetry import Resumed, TraceRef
from telemetry.context import Scope
from telemetry.heartbeat import Attempt, Heartbeat, close_as_lost, continued, written
from telemetry.span import one_line

logger = logging.getLogger(__name__)

WORKFLOW = "run"
# A run that was begun by one release may be ended by another: its checkpoints and its answers fit both.
VERSION = "1"
# How often an agent may fail, and how often in all it may be begun.
MAX_FAILURES = 3
MAX_ATTEMPTS = 6
FIRST_WAIT_S = 1.0
# Of one user, and of all, at once in one process for each agent.
PER_USER = 2
POLL_S = 0.5
# A process is taken for dead after so many heartbeats that did not come.
MISSED = 3


class AgentFailedError(Exception):
    """An attempt failed and may be made again."""


@dataclass
class Runs:
    """The background runs of this process, and of those that died."""

    records: RunRecords
    turns: Turns
    graphs: dict[str, CompiledStateGraph]
    checkpoints: BaseCheckpointSaver[Any]
    engine_url: str
    heartbeat_s: float
    timeout_s: float
    concurrency: int
    alone: bool
    executor: str = field(default_factory=lambda: uuid4().hex)
    _under_way: dict[str, AgentTurn] = field(default_factory=dict)
    _halted: set[str] = field(default_factory=set)
    _watching: asyncio.Task[None] | None = None
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _stopping: bool = False

    async def submit(self, agent: str, user: str, asked: UserInput) -> BackgroundRun:
        """Return the run, accepted: whatever happens to this process, it comes to its end."""
        await self.start()
        trace = telemetry.current_trace()
        run = BackgroundRun(
            run_id=str(uuid4()),
            thread_id=asked.thread_id or str(uuid4()),
            user_id=user,
            agent=agent,
            asked=asked.model_dump_json(),
            created=time.time(),
            trace_id=trace.trace_id if trace else None,
            span_id=trace.span_id if trace else None,
            sampled=bool(trace and trace.sampled),
        )
        await self.records.add(run)
        with telemetry.scope(session_id=run.thread_id, user_id=user or None, agent=agent, run_id=run.run_id):
            Heartbeat(self.heartbeat_s).beat("queued")
        await self._enqueue(run)
        return run

    async def keeps_trace(self, run: BackgroundRun, made: Sequence[AttemptRecord]) -> bool:
        """Return whether the trace that the run points to is kept, as far as that is known."""
        kept = await self.turns.outcomes.kept(run.run_id)
        if kept is None and made:
            return made[0].sampled
        return run.sampled and kept is not False

    async def works_on(self, thread_id: str) -> bool:
        """Return whether the thread has a run that has not ended."""
        return bool(await self.records.unfinished(thread_id=thread_id))

    async def status(self, run: BackgroundRun) -> RunStatus:
        """Return the run's status; `lost` while its process is silent and nobody has taken over."""
        if run.status not in ("running", STOPPING):
            return cast("RunStatus", run.status)
        silent = await self.records.silent(time.time() - MISSED * self.heartbeat_s)
        return "lost" if run.owner in silent else "running"

    async def cancel(self, run: BackgroundRun) -> None:
        """Stop the run, wherever it is."""
        await self.start()
        await self.records.stop(run.run_id)
        if not await self._is_at_work(run):
            with suppress(Fenced):
                await self._conclude(await self._revoke(run), "cancelled")
        await DBOS.cancel_workflow_async(run.run_id)
        if turn := self._under_way.get(run.run_id):
            turn.cancel("cancel")

    async def _is_at_work(self, run: BackgroundRun) -> bool:
        """Return whether there is an attempt to end the run; one that failed may have no other after it yet."""
        if run.status == "queued" or await self.status(run) == "lost":
            return False
        made = await self.records.attempts(run.run_id)
        return not made or made[-1].attempt < run.attempt or made[-1].status != "failed"

    async def resume(self) -> None:
        """Start the engine, where runs wait for it."""
        if not self.alone or await self.records.unfinished():
            await self.start()

    async def start(self) -> None:
        """Start the engine, once; take over from processes that died."""
        async with self._starting:
            if self._watching:
                return
            await self.records.sign(self.executor)
            # What may take long, and wait for others. The rest has to begin on this loop: the engine runs what is ours
            # on the loop that it was launched from, which in a thread would be one of its own.
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
            for run in await self.records.unfinished(status="queued"):
                await self._enqueue(run)
                await self._end_where_stopped(run)
            if self.alone:
                await self._take_over(time.time())
            self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop the engine; what has not ended goes on elsewhere, or with the next process."""
        self._stopping = True
        if self._watching:
            self._watching.cancel()
            await self.records.leave(self.executor)
            await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    # --- the engine ---

    def _launch(self) -> None:
        config: DBOSConfig = {
            "name": "agent-service",
            "system_database_url": self.engine_url,
            "executor_id": self.executor,
            "application_version": VERSION,
            "log_level": "ERROR",  # below that it tells of every end that was ours to write
            "enable_otlp": False,
        }
        DBOS(config=config)
        logging.getLogger("dbos").addFilter(_is_news)

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
                await self._end_where_nobody_did(run_id)
                raise
            except Exception as error:  # noqa: BLE001 - whatever it was, the run has its end
                await self._give_up(run_id, error)

        DBOS.launch()

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

    # --- the dead ---

    async def _watch(self) -> None:
        while True:
            try:
                await self.records.sign(self.executor)
                await self._take_over(time.time() - MISSED * self.heartbeat_s)
            except SQLAlchemyError as error:
                logger.warning("the runs of other processes cannot be looked after: %s", one_line(error))
            await asyncio.sleep(self.heartbeat_s)

    async def _take_over(self, since: float) -> None:
        for executor, beat in (await self.records.silent(since, self.executor)).items():
            if not await self.records.claim(executor, beat):
                continue
            for run in await self.records.unfinished(owner=executor):
                with suppress(Fenced):
                    await self._end_where_stopped(await self._revoke(run))
            for left in await DBOS.list_workflows_async(status="PENDING", executor_id=executor, load_input=False):
                await DBOS.resume_workflow_async(left.workflow_id, queue_name=left.queue_name)
            await self.records.forget(executor)

    async def _revoke(self, run: BackgroundRun) -> BackgroundRun:
        taken = await self.records.revoke(run)
        await self._bury(taken, await self.records.attempts(run.run_id))
        return taken

    async def _end_where_stopped(self, run: BackgroundRun) -> None:
        """End a run that was cancelled, or over its time, when nobody was there to say so."""
        known = await DBOS.get_workflow_status_async(run.run_id)
        if known and known.status == "CANCELLED":
            with suppress(Fenced):
                await self._conclude(run, *self._stopped(run))

    def _stopped(self, run: BackgroundRun) -> tuple[RunStatus, str | None]:
        if time.time() - run.created > self.timeout_s:
            return "failed", f"TimeoutError: the run took longer than {self.timeout_s:g} s"
        return "cancelled", None

    async def _give_up(self, run_id: str, error: Exception) -> None:
        """End a run whose attempts failed without being able to say so themselves."""
        with suppress(Fenced):
            run = await self.records.begin(run_id, self.executor)
            await self._bury(run, await self.records.attempts(run_id))
            await self._conclude(run, "failed", one_line(getattr(error, "errors", [error])[-1]))

    async def _bury(self, run: BackgroundRun, earlier: Sequence[AttemptRecord]) -> None:
        """Close the attempts whose processes died; whoever dies in the middle of it leaves the rest to the next."""
        for number, dead in enumerate(earlier, 1):
            if dead.status == "running" and dead.attempt < run.attempt:
                if dead.trace:
                    await asyncio.to_thread(close_as_lost, _lost(run, dead, dead.trace, number))
                await self.records.close(dead, "lost")

    async def _end_where_nobody_did(self, run_id: str) -> None:
        """End a run that was cancelled between two attempts."""
        run = await self.records.run(run_id)
        if run and not run.is_over:
            with suppress(Fenced):
                await self._conclude(await self._revoke(run), *self._stopped(run))

    # --- one attempt ---

    async def _attempt(self, run_id: str) -> None:
        """Bring the run to its end; what the engine makes of an exception is another attempt.

        However often the engine cancels it, and whenever, what an attempt writes is written to its end.
        """
        making, disturbed = asyncio.create_task(self._to_its_end(run_id)), False
        while not making.done():
            try:
                await asyncio.wait({making})
            except asyncio.CancelledError:
                disturbed = True
                self._halt(run_id)
        self._halted.discard(run_id)
        try:
            making.result()
        except Fenced:
            if not disturbed and not await self._is_over(run_id):
                # Others have it: neither an end nor an error of this attempt may reach the engine.
                await asyncio.Event().wait()
        if disturbed:
            raise asyncio.CancelledError

    def _halt(self, run_id: str) -> None:
        """Stop the attempt where it stands, or as soon as its agent would begin."""
        if turn := self._under_way.get(run_id):
            turn.cancel("shutdown" if self._stopping else "cancel")
        else:
            self._halted.add(run_id)

    async def _to_its_end(self, run_id: str) -> None:
        run = await self.records.begin(run_id, self.executor)
        earlier = await self.records.attempts(run_id)
        await self._bury(run, earlier)
        if len(earlier) >= MAX_ATTEMPTS:
            await self._conclude(run, "failed", f"the run was begun {len(earlier)} times and never ended")
        elif run.status == STOPPING:
            await self._conclude(run, "cancelled")
        else:
            await self._make(run, earlier)

    async def _is_over(self, run_id: str) -> bool:
        run = await self.records.run(run_id)
        return run is None or run.is_over

    async def _make(self, run: BackgroundRun, earlier: Sequence[AttemptRecord]) -> None:
        asked = UserInput.model_validate_json(run.asked)
        graph = self.graphs[run.agent].copy({"checkpointer": FencedSaver(self.checkpoints, self._check(run))})
        state = await graph.aget_state({"configurable": {"thread_id": run.thread_id}})
        turn = self._turn(run, asked, earlier)
        await self._record(run, turn, state, asked, first=not earlier)
        running = Running(
            graph,
            config_of(turn, run.agent, _thread(run), asked),
            asked,
            state,
            run=run,
            records=self.records,
            heartbeat_s=self.heartbeat_s,
        )
        turn.start(running.work)
        self._under_way[run.run_id] = turn
        if run.run_id in self._halted:
            self._halt(run.run_id)
        try:
            await self._read(run, turn)
        finally:
            if self._under_way.get(run.run_id) is turn:  # not a later attempt's
                del self._under_way[run.run_id]
        await self._ended(run, turn, running, earlier)

    def _check(self, run: BackgroundRun) -> Callable[[], Coroutine[Any, Any, None]]:
        return lambda: self.records.check(run)

    def _turn(self, run: BackgroundRun, asked: UserInput, earlier: Sequence[AttemptRecord]) -> AgentTurn:
        before = earlier[-1] if earlier else None
        with continued(None if before else run.trace):
            turn = AgentTurn(
                run.agent,
                run_id=UUID(run.run_id),
                session_id=run.thread_id,
                user_id=run.user_id or None,
                message=asked.message,
                resumes=Resumed(run.run_id, before.trace, round(time.time() - before.beat, 1)) if before else None,
            )
        turn.span.set_attribute("turn.attempt", len(earlier) + 1)
        return turn

    async def _record(
        self, run: BackgroundRun, turn: AgentTurn, state: StateSnapshot, asked: UserInput, *, first: bool
    ) -> None:
        trace, now = turn.trace, time.time()
        ids = {"trace_id": trace.trace_id, "span_id": trace.span_id, "sampled": trace.sampled} if trace else {}
        try:
            await self.records.record(AttemptRecord(run.run_id, run.attempt, now, now, **ids))
            if first:
                await self.turns.records.begin(run_of(turn, run.agent, _thread(run), asked, state))
            await self.records.tell(run, run_event(turn).model_dump_json())
        except BaseException as error:
            turn.refuse(error)
            raise

    async def _read(self, run: BackgroundRun, turn: AgentTurn) -> None:
        try:
            async for item in turn:
                await self.records.tell(run, item.model_dump_json())
        except Fenced:
            turn.cancel("fenced")
        await turn.ended()

    async def _ended(
        self, run: BackgroundRun, turn: AgentTurn, running: Running, earlier: Sequence[AttemptRecord]
    ) -> None:
        status = turn.status or "failed"
        # Who is killed here has its attempt closed by another one, as long as nobody knows of its end.
        await asyncio.to_thread(written)
        await self.records.check(run)
        await self.records.close(run, status, kept=turn.kept)
        if turn.cause == "shutdown":
            # The service stops: the run goes on with the next one.
            raise Fenced(run.run_id)
        error = one_line(turn.error) if turn.error else None
        if status == "cancelled":
            status, error = self._stopped(run)
        failures = sum(each.status == "failed" for each in earlier) + 1
        if status == "failed" and turn.status == "failed" and failures < MAX_FAILURES:
            logger.warning("run %s failed and is tried again: %s", run.run_id, error)
            raise AgentFailedError(error)
        await running.settle(turn)
        # The run points to the trace of its first attempt.
        await self.turns.note(turn, running.asked.model, kept=earlier[0].sampled if earlier else turn.kept)
        await self._conclude(run, status, error)

    async def _conclude(self, run: BackgroundRun, status: Any, error: str | None = None) -> None:
        if error:
            kind, _, said = error.partition(": ")
            event = ErrorEvent(error=kind if said else "Failed", message=error, trace_id=run.trace_id)
            await self.records.tell(run, event.model_dump_json())
        kept = await self.keeps_trace(run, await self.records.attempts(run.run_id))
        await self.records.tell(run, EndEvent(status=status, kept=kept).model_dump_json())
        await self.records.end(run, status, error)
        await self.turns.records.end(run.run_id, status)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether the engine tells of more than a run that was cancelled, which it takes for an error."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, engine.DBOSAwaitedWorkflowCancelledError)


def _thread(run: BackgroundRun) -> Thread:
    return Thread(run.thread_id, run.user_id, run.agent)


def _scope(run: BackgroundRun) -> Scope:
    return Scope(session_id=run.thread_id, user_id=run.user_id or None, agent=run.agent, run_id=run.run_id)


def _lost(run: BackgroundRun, dead: AttemptRecord, trace: TraceRef, number: int) -> Attempt:
    return Attempt(
        trace=trace,
        parent=run.trace if run.trace_id == trace.trace_id else None,
        scope=_scope(run),
        began=dead.began,
        last_beat=dead.beat,
        attempt=number,
    )
