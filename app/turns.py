"""Run turns: an agent's work on one user message, the events for clients, and what is stored."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast
from uuid import UUID, uuid4

from fastapi import HTTPException
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, StateSnapshot, StreamMode
from sqlalchemy.exc import SQLAlchemyError

from app.checkpoint_pruning import CheckpointPruning
from app.database.availability import Availability
from app.database.branches import with_saver
from app.database.guarded_saver import GuardedSaver
from app.database.outcomes import Outcome, Outcomes
from app.database.thread_locks import ThreadLocks
from app.database.thread_store import CANCELLING, RunProgress, RunRecord, StaleRunError, Thread, ThreadStore
from app.database.turn_events import TurnEvents
from app.limits import Limits
from app.messages import (
    answer_open_calls,
    answer_text,
    complete_turn,
    from_chat_message,
    messages_in,
    no_answer,
    partial_answer,
    reasoning_text,
    since_last_human,
    to_chat_message,
    without,
)
from app.models.usage import INPUT, OUTPUT, Price, Usage, cost
from app.questions import interrupt_event, resume_values
from app.recording import Recording
from app.schema import (
    ChatMessage,
    EndEvent,
    ErrorEvent,
    Figures,
    InnerTokenEvent,
    MessageEvent,
    ReasoningEvent,
    RunEvent,
    StreamEvent,
    StreamInput,
    TaskEvent,
    TokenEvent,
    UserInput,
)
from app.versions import Versions
from telemetry import Resumed, TraceRef, Turn, scope, suppress_instrumentation, trace_url
from telemetry.context import Scope
from telemetry.heartbeat import LostTurn, close_as_lost, written
from telemetry.instrumentation.langchain.cancellation import CancellationCallback
from telemetry.json_text import parse
from telemetry.moment import as_utc
from telemetry.span import one_line
from telemetry.span_tree import follow_turn, take_spans

logger = logging.getLogger(__name__)

AgentTurn = Turn[StreamEvent]
PriceOf = Callable[[str | None], Price | None]
# LangGraph's own limit would stop an endless loop only after ten thousand steps.
MAX_STEPS = 50
# How often to look for turns that another process was asked to cancel.
POLL_INTERVAL_S = 0.5
# How often to look for turns whose process has died.
REPAIR_INTERVAL_S = 10
# How long a start waits for the repair of what the last process has left, which then goes on beside requests.
REPAIR_PATIENCE_S = 5.0
# How long a stop waits for what is still to be stored of turns that have ended.
STOP_PATIENCE_S = 1.0
# How often to store what a turn has said so far, which remains if its process dies.
PARTIAL_INTERVAL_S = 1.0
# How long the process of a turn that has ended may take to store its last events.
EVENTS_PATIENCE_S = 5.0
# The nodes that LangChain's middleware adds to an agent's graph.
_HOOK = re.compile(r"\.(?:before|after)_(?:agent|model)$")
# The error of a turn that its process left unfinished.
LOST = "The service ended before the turn did."


@dataclass
class Turns:
    """The turns of this service: at most one at a time on a thread, and none during a background run."""

    graphs: Mapping[str, CompiledStateGraph]
    store: ThreadStore
    outcomes: Outcomes
    events: TurnEvents
    thread_locks: ThreadLocks
    availability: Availability
    versions: Versions
    pruning: CheckpointPruning
    limits: Limits
    timeout_s: float
    price_of: PriceOf
    single_process: bool
    has_background_run: Callable[[str], Awaitable[bool]] | None = None
    # Of the turns of this process that outlive their readers, by the run's id.
    recordings: dict[str, Recording] = field(default_factory=dict)
    _busy: dict[str, AgentTurn | None] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _cancel_watcher: asyncio.Task[None] | None = None

    async def begin(self, key: str, graph: CompiledStateGraph, user: str, request: UserInput) -> AgentTurn:
        """Start a turn of the agent `key` and return it.

        Raise 404 for another user's thread, 409 for a busy one, 429 beyond a limit.
        """
        async with self.limits.admit(user) as run_id:
            return await self._begin(UUID(run_id), key, graph, user, request)

    async def _begin(
        self, run_id: UUID, key: str, graph: CompiledStateGraph, user: str, request: UserInput
    ) -> AgentTurn:
        thread_id = request.thread_id or str(uuid4())
        thread = await self.get_or_create_thread(Thread(thread_id, user, key))
        await self._lock(thread_id)
        try:
            await self.end_lost_turns(thread_id)
            request, replaced = await self.resolve_replaced(thread_id, request)
            if replaced is None:
                await self.refuse_answer_to_other_agent(thread_id, key)
            graph = await self.versions.begin(str(run_id), graph, thread_id, replaced)
            turn = self._busy[thread_id] = await self._start(run_id, key, graph, thread, request, replaced)
        except BaseException:
            await self._unlock(thread_id)
            raise
        if not self.single_process and (self._cancel_watcher is None or self._cancel_watcher.done()):
            self._cancel_watcher = asyncio.create_task(self._cancel_where_requested())
        return turn

    async def get_thread(self, thread_id: str, user: str) -> Thread:
        """Return this user's thread; raise 404 if there is none."""
        if thread := await self.find_thread(thread_id, user):
            return thread
        raise no_such_thread(thread_id)

    async def find_thread(self, thread_id: str, user: str) -> Thread | None:
        """Return this user's thread, None if it does not exist yet; raise 404 for another user's."""
        thread = await self.store.get_thread(thread_id)
        if thread and thread.user_id != user:
            raise no_such_thread(thread_id)
        return thread

    async def get_or_create_thread(self, thread: Thread) -> Thread:
        """Return the thread, created for this user if it does not exist; raise 404 for another user's."""
        stored = await self.store.get_or_create(thread)
        if stored.user_id != thread.user_id:
            raise no_such_thread(thread.thread_id)
        return stored

    async def resolve_replaced(self, thread_id: str, request: UserInput) -> tuple[UserInput, RunRecord | None]:
        """Return the request with the message that it asks again, and the run that it replaces, None if it does not.

        Raise 404 or 409 for a run that cannot be replaced.
        """
        replaced = await self.versions.replaced_run(thread_id, request)
        if replaced and not request.message:
            request = request.model_copy(update={"message": replaced.message})
        return request, replaced

    async def refuse_answer_to_other_agent(self, thread_id: str, key: str) -> None:
        """Raise 409 if another agent than `key` waits for an answer on the thread."""
        last = await self.versions.latest_run(thread_id)
        if last is None or last.agent == key:
            return
        if graph := self.graphs.get(last.agent):
            graph = await self.versions.graph_of(graph, thread_id)
            # The stored status is wrong if a process was killed after it had passed the answer on.
            waits = bool((await graph.aget_state({"configurable": {"thread_id": thread_id}})).interrupts)
        else:
            waits = last.status == "waiting"
        if waits:
            raise HTTPException(
                409,
                f"Thread {thread_id} waits for an answer to the agent {last.agent}: "
                "answer it there, or start another thread.",
            )

    async def refuse_unfit_answers(self, graph: CompiledStateGraph, thread_id: str, request: UserInput) -> None:
        """Raise 409 or 422 if the request does not answer the thread's open questions."""
        graph = await self.versions.graph_of(graph, thread_id)
        state = await graph.aget_state({"configurable": {"thread_id": thread_id}})
        resume_values(state.interrupts, request)

    async def save_outcome(self, turn: AgentTurn, request: UserInput, *, kept: bool | None = None) -> None:
        """Store the outcome of the turn; `kept` is whether its trace is kept."""
        error = one_line(turn.error) if turn.error else None
        trace_kept = turn.kept if kept is None else kept
        await self.outcomes.save(
            Outcome(str(turn.run_id), turn.session_id, trace_kept, error, self.figures(turn, request.model))
        )
        await self.outcomes.save_words(str(turn.run_id), turn.session_id, request.text, turn.answer)
        if turn.status == "waiting":
            questions = [parse(question) or question for question in turn.questions.values()]
            await self.outcomes.save_questions(str(turn.run_id), turn.session_id, questions)

    def figures(self, turn: AgentTurn, model: str | None) -> Figures:
        """Return the turn's duration, tokens and cost at the price of this model."""
        return Figures(
            duration_ms=turn.duration_ms,
            first_token_ms=turn.first_token_ms,
            input_tokens=turn.counts.get(INPUT),
            output_tokens=turn.counts.get(OUTPUT),
            cost=cost(turn.counts, self.price_of(model)),
        )

    async def cancel(self, run: RunRecord) -> str:
        """Cancel the run if it is running, here or in another process; return its status."""
        if turn := self._under_way().get(run.run_id):
            turn.cancel("cancel")
        elif self.single_process or not await self.store.request_cancel(run.run_id):
            return run.status
        return CANCELLING

    @asynccontextmanager
    async def repairing(self) -> AsyncIterator[None]:
        """End the turns of dead processes: once if there is a single process, otherwise repeatedly."""
        if self.single_process:
            repair = asyncio.create_task(self.availability.retry(lambda: self._repair(set())))
            # These turns remain unfinished if that fails; all others can be served.
            repair.add_done_callback(_log_unrepaired)
            await asyncio.wait({repair}, timeout=REPAIR_PATIENCE_S)
        else:
            repair = asyncio.create_task(self._repair_repeatedly())
        try:
            yield
        finally:
            repair.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=STOP_PATIENCE_S)

    async def _repair_repeatedly(self) -> None:
        free: set[str] = set()
        while True:
            # After an outage, living processes have to lock their threads again first.
            if self.availability.usable_for_s > REPAIR_INTERVAL_S:
                try:
                    free = await self._repair(free)
                except SQLAlchemyError as error:
                    if not self.availability.is_outage(error):
                        logger.warning("cannot look for the turns of dead processes: %s", one_line(error))
            await asyncio.sleep(REPAIR_INTERVAL_S)

    async def _repair(self, free: set[str]) -> set[str]:
        """End unfinished turns without a lock, among several processes at the second look; return those without one."""
        found: set[str] = set()
        for run in [*await self.store.unfinished(), *await self.store.with_progress()]:
            async with self.try_lock_thread(run.thread_id) as is_free:
                if is_free:
                    found.add(run.run_id)
                    if self.single_process or run.run_id in free:
                        await self._end_lost(run.run_id)
        return found

    async def end_lost_turns(self, thread_id: str) -> None:
        """End what a dead process has left unfinished on a locked thread, before the thread is used again."""
        for run in await self.store.unfinished(thread_id):
            await self._end_lost(run.run_id)

    async def _end_lost(self, run_id: str) -> None:
        """End a turn of a dead process as failed, with what it had said, and its span; each step may be repeated."""
        run = await self.store.get_run(run_id)
        if run is None:
            return
        progress = await self.store.progress_of(run_id)
        if run.status == "running":
            try:
                await self._save_lost_messages(run, progress.answer if progress else "")
            except Exception as error:
                if self.availability.is_outage(error):
                    raise
                logger.exception("run %s leaves its thread as it is", run_id)
            await self.outcomes.save(Outcome(run_id, run.thread_id, run.sampled, LOST, Figures()))
            await self.store.end_run(run_id, "failed")
        outcome = (await self.outcomes.of_thread(run.thread_id)).get(run_id)
        await self._end_lost_events(run, outcome)
        if progress and run.trace and outcome and outcome.kept:
            lost = _lost_turn(run, run.trace, progress, outcome.error)
            await asyncio.to_thread(close_as_lost, lost)
        await self.store.forget_progress(run_id)

    async def end_events_if_lost(self, run_id: str) -> None:
        """End the events of a turn of this database whose process has died."""
        if run_id in self.recordings:
            return
        # After an outage, living processes have to lock their threads again first.
        if not self.single_process and self.availability.usable_for_s < REPAIR_INTERVAL_S:
            return
        run = await self.store.get_run(run_id)
        if run is None:
            return
        if run.status == "running":
            async with self.try_lock_thread(run.thread_id) as is_free:
                if is_free:
                    await self.end_lost_turns(run.thread_id)
        elif run.ended and (datetime.now(UTC) - as_utc(run.ended)).total_seconds() > EVENTS_PATIENCE_S:
            await self._end_lost_events(run, (await self.outcomes.of_thread(run.thread_id)).get(run_id))

    async def _end_lost_events(self, run: RunRecord, outcome: Outcome | None) -> None:
        """Store the last events of a turn that its process could not store: messages of its thread, error and end."""
        if await self.events.has_ended(run.run_id):
            return
        last: list[StreamEvent] = []
        if graph := self.graphs.get(run.agent):
            messages = messages_of(await graph.aget_state({"configurable": {"thread_id": run.thread_id}}))
            run_ids = await self.outcomes.messages_of(run.thread_id)
            said = [message for message in messages if run_ids.get(message.id or "") == run.run_id]
            told = await self._messages_told(run.run_id)
            last += [MessageEvent(content=content) for content in without(_answers(said, run), told)]
        if outcome and outcome.error:
            name, separator, _ = outcome.error.partition(": ")
            error = ErrorEvent(error=name if separator else "Failed", message=outcome.error, trace_id=run.trace_id)
            last.append(error)
        kept = run.sampled and (outcome is None or outcome.kept)
        last.append(
            EndEvent(
                status=cast("Any", "failed" if run.status == "running" else run.status),
                kept=kept,
                trace_url=trace_url(run.trace_id) if kept and run.trace_id else None,
                figures=outcome.figures if outcome else None,
            )
        )
        await self.events.end(run, [event.model_dump_json() for event in last])

    async def _messages_told(self, run_id: str) -> list[ChatMessage]:
        """Return the messages in the stored events of a turn."""
        events = [json.loads(body) for _, body in await self.events.after(run_id, 0)]
        return [ChatMessage.model_validate(event["content"]) for event in events if event["type"] == "message"]

    async def _save_lost_messages(self, run: RunRecord, answer: str) -> None:
        """Add to the thread what a dead process's turn has asked and said, as far as it is not in it."""
        graph = self.graphs.get(run.agent)
        if graph is None:
            return
        graph = await self.versions.graph_of_run(graph, run)
        config = RunnableConfig(configurable={"thread_id": run.thread_id, "run_id": run.run_id})
        with suppress_instrumentation():
            state = await graph.aget_state(config)
            messages = messages_of(state)
            has_begun = run.resumed or (state.metadata or {}).get("run_id") == run.run_id
            question = HumanMessage(run.message, id=f"question-{run.run_id}")
            said = since_last_human(messages) if has_begun else [*complete_turn(messages), question]
            # What its reader was told before the checkpoint was stored.
            unsaved = without(await self._messages_told(run.run_id), _answers(said, run))
            added: list[AnyMessage] = [from_chat_message(message) for message in unsaved]
            is_said = any(each.text.startswith(answer) for each in [*said, *added] if isinstance(each, AIMessage))
            added += answer_open_calls([*said, *added])
            if answer and not is_said:
                added.append(partial_answer(answer, id=f"partial-{run.run_id}"))
            said += added
            for message in said:
                message.id = message.id or str(uuid4())
            if added or not has_begun:
                await graph.aupdate_state(config, {"messages": said}, as_node=START)
        # Those of an earlier run, whose question this one has answered, stay that run's.
        await self.outcomes.save_messages(run.run_id, run.thread_id, {message.id or "" for message in said})

    @asynccontextmanager
    async def lock_thread(self, thread_id: str) -> AsyncIterator[None]:
        """Lock the thread against turns; raise 409 if one is running."""
        async with self.try_lock_thread(thread_id) as is_free:
            if not is_free:
                raise _thread_is_busy(thread_id)
            yield

    @asynccontextmanager
    async def try_lock_thread(self, thread_id: str) -> AsyncIterator[bool]:
        """Yield whether the thread could be locked against turns, for the length of the block."""
        try:
            await self._lock(thread_id)
        except HTTPException:
            yield False
            return
        try:
            yield True
        finally:
            await self._unlock(thread_id)

    async def _lock(self, thread_id: str) -> None:
        if thread_id in self._busy:
            raise _thread_is_busy(thread_id)
        self._busy[thread_id] = None
        free = False
        try:
            if await self.thread_locks.acquire(thread_id):
                free = self.has_background_run is None or not await self.has_background_run(thread_id)
        finally:
            if not free:
                await self._unlock(thread_id)
        if not free:
            raise _thread_is_busy(thread_id)

    async def _unlock(self, thread_id: str) -> None:
        try:
            await self.thread_locks.release(thread_id)
        finally:
            del self._busy[thread_id]

    def _under_way(self) -> dict[str, AgentTurn]:
        return {str(turn.run_id): turn for turn in self._busy.values() if turn}

    async def _cancel_where_requested(self) -> None:
        # Most turns end before the first check.
        await asyncio.sleep(POLL_INTERVAL_S)
        while under_way := self._under_way():
            try:
                for run_id, status in (await self.store.to_be_stopped(list(under_way))).items():
                    # A turn that has ended by itself is over, and cannot be cancelled.
                    under_way[run_id].cancel("cancel" if status == CANCELLING else "fenced")
            except SQLAlchemyError as error:
                if not self.availability.is_outage(error):
                    logger.warning("cannot read which turns are to be cancelled: %s", one_line(error))
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _start(
        self,
        run_id: UUID,
        key: str,
        graph: CompiledStateGraph,
        thread: Thread,
        request: UserInput,
        replaced: RunRecord | None,
    ) -> AgentTurn:
        state = await graph.aget_state({"configurable": {"thread_id": thread.thread_id}})
        resume_values(state.interrupts, request)
        resumes = await self._resumed_run(state)
        with linked_to(replaced):
            turn = AgentTurn(
                key,
                run_id=run_id,
                session_id=thread.thread_id,
                user_id=thread.user_id or None,
                message=request.text,
                timeout_s=self.timeout_s,
                price=self.price_of(request.model),
                resumes=resumes,
            )
        execution = AgentExecution(self._guarded(graph, turn), turn_config(turn, key, thread, request), request, state)
        event = run_event(turn)
        is_recorded = isinstance(request, StreamInput) and request.on_disconnect == "continue"
        try:
            checkpoints = await self.versions.checkpoint_thread_of(thread.thread_id, str(run_id))
            caller_id = turn.caller.span_id if turn.caller else None
            progress = RunProgress(str(turn.run_id), thread.thread_id, caller_id)
            if is_recorded:
                # Before the run, so that whoever finds the run finds its events.
                await self.events.append(str(turn.run_id), thread.thread_id, 0, [event.model_dump_json()])
            await self.store.begin_run(run_record(turn, key, thread, request, state), progress)
            if replaced:
                await self.versions.show_branch_of(thread.thread_id, str(turn.run_id))
        except BaseException as error:
            turn.refuse(error)
            # It may have been stored before the database failed.
            self._start_task(self.availability.retry(lambda: self.store.discard_run(str(turn.run_id))))
            raise

        async def settle(turn: AgentTurn) -> None:
            try:
                await self._settle(turn, execution)
                self._start_task(self._forget_progress(turn))
            finally:
                await self._unlock(thread.thread_id)
                self.pruning.prune_later(checkpoints)

        follow_turn(turn.trace)
        turn.start(execution.work, settle, streamed=isinstance(request, StreamInput))
        if is_recorded:
            self._record(turn, execution, event)
        else:
            self._start_task(self._save_partial_answers(turn, execution))
        self._start_task(self.save_spans(turn))
        if turn.sampled == "pending":
            self._start_task(self._save_sampling_decision(turn))
        return turn

    def _guarded(self, graph: CompiledStateGraph, turn: AgentTurn) -> CompiledStateGraph:
        """Return the graph with checkpoints that wait for the database, and that another process may take over."""
        fence = None if self.single_process else self.store.fence(str(turn.run_id))
        return with_saver(graph, lambda saver: GuardedSaver(saver, self.availability, fence))

    async def _settle(self, turn: AgentTurn, execution: "AgentExecution") -> None:
        """Store the messages of the turn and then its outcome, however long the database is unavailable."""
        try:
            await execution.settle(turn)
        except StaleRunError as error:
            logger.warning("run %s leaves no more on its thread: %s", turn.run_id, one_line(error))
        except Exception:
            logger.exception("run %s leaves its thread as it is", turn.run_id)

        async def store() -> None:
            stored = await self.store.get_run(str(turn.run_id))
            if stored is None or stored.status not in ("running", turn.status):
                raise StaleRunError(f"another process has ended run {turn.run_id}")
            # What was stored before the database failed is stored again.
            await self.save_outcome(turn, execution.request)
            await self.outcomes.save_messages(str(turn.run_id), turn.session_id, execution.new_ids)
            await self.store.end_run(str(turn.run_id), turn.status or "failed", turn.answer)

        try:
            await self.availability.retry(store)
        except StaleRunError as error:
            # Its reader and its trace tell what the history tells.
            turn.status, turn.error = "failed", error
        await self.availability.retry(lambda: self.limits.record(str(turn.run_id), tokens_of(turn)))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _save_partial_answers(self, turn: AgentTurn, execution: "AgentExecution") -> None:
        """Store what the turn has said so far, at intervals and if it has changed."""
        stored = ""
        while not await _has_ended(turn, PARTIAL_INTERVAL_S):
            answer = execution.partial
            if answer == stored or not self.availability.is_usable:
                continue
            try:
                await self.store.save_answer(str(turn.run_id), answer)
                stored = answer
            except SQLAlchemyError as error:
                if not self.availability.is_outage(error):
                    logger.warning("the partial answer of run %s is not stored: %s", turn.run_id, one_line(error))

    def _record(self, turn: AgentTurn, execution: "AgentExecution", first: RunEvent) -> None:
        """Store the events of the turn, which outlives its reader."""
        ending = partial(ending_events, turn, partial(self.figures, turn, execution.request.model))
        retry = self.availability.retry
        recording = Recording(turn, first, self.events, retry, lambda: execution.partial, ending)
        self.recordings[str(turn.run_id)] = recording

        async def record() -> None:
            try:
                await recording.run()
            finally:
                del self.recordings[str(turn.run_id)]

        self._start_task(record())

    async def _forget_progress(self, turn: AgentTurn) -> None:
        """Forget what the turn has said once its span is on disk, like its end: a process that dies loses neither."""
        await turn.ended()
        if recording := self.recordings.get(str(turn.run_id)):
            await recording.ended()
        await asyncio.to_thread(written)
        await self.availability.retry(lambda: self.store.forget_progress(str(turn.run_id)))

    async def save_spans(self, turn: AgentTurn) -> None:
        """Store the turn's tree once its spans have ended."""
        await turn.ended()
        if spans := take_spans(turn.trace):
            run_id = str(turn.run_id)
            await self.availability.retry(lambda: self.outcomes.save_spans(run_id, turn.session_id, spans))

    async def _save_sampling_decision(self, turn: AgentTurn) -> None:
        await turn.ended()
        if not turn.kept:
            await self.availability.retry(lambda: self.outcomes.set_kept(str(turn.run_id), kept=False))

    async def _resumed_run(self, state: StateSnapshot) -> Resumed | None:
        if not state.interrupts or not state.metadata or not state.created_at:
            return None
        waited = datetime.now(UTC) - datetime.fromisoformat(state.created_at)
        run = await self.store.get_run(state.metadata.get("run_id", ""))
        return Resumed(run.run_id, run.trace, round(waited.total_seconds(), 1)) if run else None


@dataclass
class AgentExecution:
    """One agent that works on one message, from the current state of its thread."""

    graph: CompiledStateGraph
    config: RunnableConfig
    request: UserInput
    state: StateSnapshot
    partial: str = ""
    # The sub-agent, the node and the message that the partial answer is of.
    speaker: tuple[str | None, str, str | None] | None = None
    # The messages before the turn, and those that it has added.
    earlier_ids: set[str] = field(init=False)
    new_ids: set[str] = field(default_factory=set)
    question: HumanMessage = field(init=False)

    def __post_init__(self) -> None:
        self.earlier_ids = {message.id for message in messages_of(self.state) if message.id}
        self.question = HumanMessage(self.request.text, id=str(uuid4()))
        self._tool_nodes = tool_nodes(self.graph)

    async def work(self, turn: AgentTurn) -> None:
        """Run the agent to its end or to its next question, and emit the events for clients."""
        await self.stream_graph(turn, self.graph_input())

    async def stream_graph(self, turn: AgentTurn, graph_input: Any, **options: Any) -> None:
        """Run the graph on this input, and emit the events for clients."""
        modes: list[StreamMode] = ["messages", "updates", "custom"]
        chunks = self.graph.astream(graph_input, self.config, stream_mode=modes, subgraphs=True, **options)
        async with aclosing(cast("AsyncGenerator[Any]", chunks)):
            async for path, mode, chunk in chunks:
                for event in self._client_events(turn, mode, chunk, path[-1] if path else None):
                    await turn.emit(event)

    async def settle(self, turn: AgentTurn) -> None:
        """Prepare the thread for its next turn, with the partial answer of a stopped turn."""
        turn.answer = turn.answer or self.partial
        if turn.status in ("completed", "waiting"):
            return
        with suppress_instrumentation():
            config = RunnableConfig(configurable=self.config.get("configurable", {}))
            messages = messages_of(await self.graph.aget_state(config))
            if self.state.interrupts or self.question.id in {message.id for message in messages}:
                update = since_last_human(messages)
            else:
                update = [*complete_turn(messages), self.question]
            update += answer_open_calls(update)
            if self.partial and not (messages and messages[-1].text == self.partial):
                update.append(partial_answer(self.partial))
            elif not (update and isinstance(update[-1], AIMessage)):
                update.append(no_answer())
            for message in update:
                message.id = message.id or str(uuid4())
            self.new_ids |= {message.id or "" for message in update} - self.earlier_ids
            # Even without new messages: otherwise the next message would answer an open question.
            await self.graph.aupdate_state(config, {"messages": update}, as_node=START)

    def graph_input(self) -> Any:
        """Return the message for the graph, or the answers to its open questions."""
        if self.state.interrupts:
            return Command(resume=resume_values(self.state.interrupts, self.request))
        self.new_ids.add(self.question.id or "")
        return {"messages": [*complete_turn(messages_of(self.state)), self.question]}

    def _client_events(self, turn: AgentTurn, mode: str, chunk: Any, agent: str | None) -> Iterator[StreamEvent]:
        if mode == "messages":
            piece, metadata = chunk
            if isinstance(piece, AIMessageChunk):
                yield from self._token_events(piece, metadata, agent)
        elif mode == "custom":
            if isinstance(chunk, dict) and chunk.get("type") == "task":
                yield TaskEvent.model_validate(chunk)
        elif "__interrupt__" in chunk:
            for interrupt in chunk["__interrupt__"]:
                # Each graph around a subgraph repeats the subgraph's question.
                if turn.ask(interrupt.id, interrupt.value):
                    yield interrupt_event(interrupt)
        else:
            for node, update in chunk.items():
                yield from self._message_events(turn, update, agent)
                if self.speaker and self.speaker[:2] == (agent, node):
                    # What it said is one of its messages, or was no part of the answer.
                    self.partial = ""

    def _token_events(
        self, piece: AIMessageChunk, metadata: Mapping[str, Any], agent: str | None
    ) -> Iterator[StreamEvent]:
        node = metadata["langgraph_node"]
        is_inner = node in self._tool_nodes or _HOOK.search(node) or "ls_structured_output_format" in metadata
        if piece.text and not is_inner:
            speaker = agent, node, piece.id
            # What a node said first is void if a fallback's model answers instead.
            is_retold = self.speaker is not None and self.speaker[:2] == speaker[:2] and self.speaker != speaker
            self.partial = piece.text if is_retold else self.partial + piece.text
            self.speaker = speaker
        if not (isinstance(self.request, StreamInput) and self.request.stream_tokens):
            return
        if is_inner:
            if piece.text:
                yield InnerTokenEvent(content=piece.text, node=node, agent=agent)
            return
        if reasoning := reasoning_text(piece):
            yield ReasoningEvent(content=reasoning, agent=agent)
        if piece.text:
            yield TokenEvent(content=piece.text, agent=agent, message_id=piece.id)

    def _message_events(self, turn: AgentTurn, update: object, agent: str | None) -> Iterator[StreamEvent]:
        for message in messages_in(update):
            if message.id in self.earlier_ids | self.new_ids or isinstance(message, HumanMessage):
                continue
            self.new_ids.add(message.id or "")
            if isinstance(message, AIMessage):
                self.partial, turn.answer = "", answer_text(message) or turn.answer
            trace_id = turn.trace.trace_id if turn.trace else None
            if content := to_chat_message(message, str(turn.run_id), trace_id):
                yield MessageEvent(content=content, agent=agent)


def tool_nodes(graph: CompiledStateGraph) -> set[str]:
    """Return the names of the nodes that execute tools, in the graph and in its subgraphs."""
    graphs = [graph, *(subgraph for _, subgraph in graph.get_subgraphs(recurse=True))]
    return {name for each in graphs for name, node in each.nodes.items() if isinstance(node.bound, ToolNode)}


def messages_of(state: StateSnapshot) -> Sequence[AnyMessage]:
    """Return the messages of a thread."""
    return state.values.get("messages", [])


def run_event(turn: AgentTurn) -> RunEvent:
    """Return the first event of a stream."""
    trace = turn.trace
    return RunEvent(
        run_id=str(turn.run_id),
        trace_id=trace.trace_id if trace else None,
        thread_id=turn.session_id,
        sampled=turn.sampled,
        trace_url=trace.url if trace else None,
    )


def ending_events(turn: AgentTurn, figures: Callable[[], Figures]) -> Sequence[StreamEvent]:
    """Return the last events of a stream, once the turn is over."""
    errors: list[StreamEvent] = []
    if turn.error:
        trace_id = turn.trace.trace_id if turn.trace else None
        errors = [ErrorEvent(error=type(turn.error).__name__, message=one_line(turn.error), trace_id=trace_id)]
    url = turn.trace.url if turn.trace and turn.kept else None
    end = EndEvent(
        status=turn.status or "failed", stored=turn.settled, kept=turn.kept, trace_url=url, figures=figures()
    )
    return [*errors, end]


def tokens_of(turn: AgentTurn) -> int:
    """Return how many tokens the turn's models have read and written, as far as they report it."""
    return turn.counts[INPUT] + turn.counts[OUTPUT]


def _answers(messages: Sequence[AnyMessage], run: RunRecord) -> list[ChatMessage]:
    """Return the messages of models and tools, as clients see them."""
    said = (message for message in messages if not isinstance(message, HumanMessage))
    return [shown for message in said if (shown := to_chat_message(message, run.run_id, run.trace_id))]


async def _has_ended(turn: AgentTurn, seconds: float) -> bool:
    """Return whether the turn ends within this time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await turn.ended()
            return True
    return False


def _log_unrepaired(repairing: "asyncio.Task[Any]") -> None:
    if not repairing.cancelled() and (error := repairing.exception()):
        logger.error("the turns of the last process cannot be ended", exc_info=error)


def _lost_turn(run: RunRecord, trace: TraceRef, progress: RunProgress, error: str | None) -> LostTurn:
    caller = TraceRef(trace.trace_id, progress.caller_id, trace.sampled) if progress.caller_id else None
    return LostTurn(
        trace=trace,
        parent=caller,
        scope=Scope(session_id=run.thread_id, user_id=run.user_id or None, agent=run.agent, run_id=run.run_id),
        message=run.message,
        began=as_utc(run.created).timestamp(),
        last_sign=as_utc(progress.updated).timestamp(),
        answer=progress.answer,
        status="failed" if run.status == "running" else run.status,
        reason=error,
    )


def no_such_thread(thread_id: str) -> HTTPException:
    """Return the error for a thread that does not exist or belongs to another user."""
    return HTTPException(404, f"There is no thread {thread_id}.")


def _thread_is_busy(thread_id: str) -> HTTPException:
    return HTTPException(409, f"Thread {thread_id} is already answering: wait until it has finished, or cancel it.")


@contextmanager
def linked_to(replaced: RunRecord | None) -> Iterator[None]:
    """Name the run that is replaced, and its trace, on the spans inside."""
    if replaced is None:
        yield
        return
    metadata = {"replaces": replaced.run_id, "replaces_trace": replaced.trace_id or ""}
    with scope(metadata=metadata):
        yield


def run_record(turn: AgentTurn, key: str, thread: Thread, request: UserInput, state: StateSnapshot) -> RunRecord:
    """Return the initial record of this turn's run."""
    return RunRecord(
        run_id=str(turn.run_id),
        thread_id=thread.thread_id,
        user_id=thread.user_id,
        agent=key,
        position=len(messages_of(state)),
        message=request.text,
        trace_id=turn.trace.trace_id if turn.trace else None,
        span_id=turn.trace.span_id if turn.trace else None,
        sampled=bool(turn.trace and turn.trace.sampled),
        resumed=bool(state.interrupts),
    )


def turn_config(turn: AgentTurn, key: str, thread: Thread, request: UserInput) -> RunnableConfig:
    """Return the configuration that the turn's graph runs with."""
    ids = {"trace_id": turn.trace.trace_id} if turn.trace else {}
    # These are stored with every checkpoint.
    ids |= {"run_id": str(turn.run_id), "session_id": thread.thread_id, "agent_name": key}
    configurable = {**request.agent_config, "thread_id": thread.thread_id, "model": request.model, **ids}
    return RunnableConfig(
        run_id=turn.run_id,
        recursion_limit=MAX_STEPS,
        configurable=configurable,
        callbacks=[CancellationCallback(turn), Usage(turn.counts)],
    )
