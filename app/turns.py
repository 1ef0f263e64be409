"""Running an agent for one user message: what goes in, what comes out, what is kept."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast
from uuid import uuid4

from fastapi import HTTPException
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot, StreamMode
from sqlalchemy.exc import SQLAlchemyError

from app.database.claims import Claims
from app.database.outcomes import Outcome, Outcomes
from app.database.records import STOPPING, Records, Run, Thread
from app.messages import closed, in_custom, in_update, last_turn, stopped, to_chat
from app.models.prices import INPUT, OUTPUT, Price, cost
from app.models.usage import Usage
from app.schema import Figures, InterruptEvent, MessageEvent, RunEvent, StreamEvent, StreamInput, TokenEvent, UserInput
from telemetry import Resumed, Turn, untraced
from telemetry.json_text import parse
from telemetry.langchain.gate import Gate
from telemetry.span import one_line

logger = logging.getLogger(__name__)

AgentTurn = Turn[StreamEvent]
PriceOf = Callable[[str | None], Price | None]
# LangGraph itself would stop an agent that goes round in circles after ten thousand steps.
MAX_STEPS = 50
# Between two looks for turns that another process was asked to cancel.
LOOK_EVERY_S = 0.5


@dataclass
class Turns:
    """The turns of this service: at most one at a time on a thread, and none beside a run in the background."""

    graphs: Mapping[str, CompiledStateGraph]
    records: Records
    outcomes: Outcomes
    claims: Claims
    timeout_s: float
    price_of: PriceOf
    alone: bool
    has_run: Callable[[str], Awaitable[bool]] | None = None
    _busy: dict[str, AgentTurn | None] = field(default_factory=dict)
    _following: set[asyncio.Task[None]] = field(default_factory=set)
    _watching: asyncio.Task[None] | None = None

    async def begin(self, key: str, graph: CompiledStateGraph, user: str, asked: UserInput) -> AgentTurn:
        """Start a turn of the agent `key` and return it; 404 for a foreign thread, 409 for one that is not free."""
        thread_id = asked.thread_id or str(uuid4())
        thread = await self.claim(Thread(thread_id, user, key))
        if thread_id in self._busy:
            raise _busy(thread_id)
        self._busy[thread_id] = None
        try:
            await self._take(thread_id)
            await self.refuse_answer_of_other(thread_id, key)
            turn = self._busy[thread_id] = await self._start(key, graph, thread, asked)
        except BaseException:
            await self._free(thread_id)
            raise
        self._watch()
        return turn

    async def own(self, thread_id: str, user: str) -> Thread:
        """Return this user's thread; 404 where there is none."""
        if thread := await self.own_or_new(thread_id, user):
            return thread
        raise unknown_thread(thread_id)

    async def own_or_new(self, thread_id: str, user: str) -> Thread | None:
        """Return this user's thread, None where nobody has it yet; 404 for a foreign one."""
        thread = await self.records.thread(thread_id)
        if thread and thread.user_id != user:
            raise unknown_thread(thread_id)
        return thread

    async def claim(self, wanted: Thread) -> Thread:
        """Return the thread as it is kept, this user's from now on if nobody had it; 404 for a foreign one."""
        thread = await self.records.claim(wanted)
        if thread.user_id != wanted.user_id:
            raise unknown_thread(thread.thread_id)
        return thread

    async def refuse_answer_of_other(self, thread_id: str, key: str) -> None:
        """Let the agent `key` go on with the thread; 409 where another one waits there for its answer."""
        last = await self.records.latest(thread_id)
        if last and last.agent != key and await self._waits(last):
            raise HTTPException(
                409,
                f"Thread {thread_id} waits for an answer to the agent {last.agent}: "
                "answer it there, or begin another thread.",
            )

    async def _waits(self, run: Run) -> bool:
        # What is kept of a run says nothing where its process was killed as it went on with the answer.
        graph = self.graphs.get(run.agent)
        if graph is None:
            return run.status == "waiting"
        return bool((await graph.aget_state({"configurable": {"thread_id": run.thread_id}})).interrupts)

    async def note(self, turn: AgentTurn, model: str | None, *, kept: bool | None = None) -> None:
        """Keep what the turn came to, so that its thread shows it ever after; `kept` is of the trace it points to."""
        error = one_line(turn.error) if turn.error else None
        known = turn.kept if kept is None else kept
        await self.outcomes.keep(Outcome(str(turn.run_id), turn.session_id, known, error, self.figures(turn, model)))
        if turn.status == "waiting":
            asked = [parse(question) or question for question in turn.questions.values()]
            await self.outcomes.ask(str(turn.run_id), turn.session_id, asked)

    def figures(self, turn: AgentTurn, model: str | None) -> Figures:
        """Return what the turn took, at the price of this model."""
        return Figures(
            duration_ms=turn.duration_ms,
            first_token_ms=turn.first_token_ms,
            input_tokens=turn.counts.get(INPUT),
            output_tokens=turn.counts.get(OUTPUT),
            cost=cost(turn.counts, self.price_of(model)),
        )

    def running(self, run_id: str) -> AgentTurn | None:
        """Return the turn of this run, None where it is not under way here."""
        return self._under_way().get(run_id)

    async def cancel(self, run: Run) -> str:
        """Stop the run where it is under way, here or in another process; return its status."""
        if turn := self.running(run.run_id):
            turn.cancel("cancel")
        elif self.alone or not await self.records.stop(run.run_id):
            return run.status
        return STOPPING

    @asynccontextmanager
    async def held(self, thread_id: str) -> AsyncIterator[None]:
        """Keep turns away from the thread; 409 where one is under way."""
        if thread_id in self._busy:
            raise _busy(thread_id)
        self._busy[thread_id] = None
        try:
            await self._take(thread_id)
            yield
        finally:
            await self._free(thread_id)

    def _under_way(self) -> dict[str, AgentTurn]:
        return {str(turn.run_id): turn for turn in self._busy.values() if turn}

    def _watch(self) -> None:
        if not self.alone and (self._watching is None or self._watching.done()):
            self._watching = asyncio.create_task(self._stop_where_asked())

    async def _stop_where_asked(self) -> None:
        # Most turns are over before the first look, and pay for none.
        await asyncio.sleep(LOOK_EVERY_S)
        while under_way := self._under_way():
            try:
                for run_id in await self.records.stopping(list(under_way)):
                    if turn := self.running(run_id):
                        turn.cancel("cancel")
            except SQLAlchemyError as error:
                logger.warning("what other processes were asked to cancel cannot be seen: %s", one_line(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _take(self, thread_id: str) -> None:
        if not await self.claims.take(thread_id) or (self.has_run and await self.has_run(thread_id)):
            raise _busy(thread_id)

    async def _free(self, thread_id: str) -> None:
        del self._busy[thread_id]
        await self.claims.free(thread_id)

    async def _start(self, key: str, graph: CompiledStateGraph, thread: Thread, asked: UserInput) -> AgentTurn:
        state = await graph.aget_state({"configurable": {"thread_id": thread.thread_id}})
        turn = AgentTurn(
            key,
            run_id=uuid4(),
            session_id=thread.thread_id,
            user_id=thread.user_id or None,
            message=asked.message,
            timeout_s=self.timeout_s,
            resumes=await self._resumed(state),
        )
        answering = Answering(graph, config_of(turn, key, thread, asked), asked, state)
        try:
            await self.records.begin(run_of(turn, key, thread, asked, state))
        except BaseException as error:
            turn.refuse(error)
            raise
        streamed = isinstance(asked, StreamInput)
        turn.start(answering.work, lambda _: self._settle(turn, thread, answering), streamed=streamed)
        if turn.sampled == "pending":
            following = asyncio.create_task(self._follow_verdict(turn))
            self._following.add(following)
            following.add_done_callback(self._following.discard)
        return turn

    async def _follow_verdict(self, turn: AgentTurn) -> None:
        await turn.ended()
        try:
            if not turn.kept:
                await self.outcomes.set_kept(str(turn.run_id), kept=False)
        except SQLAlchemyError as error:
            logger.warning("run %s keeps a link to a trace that was dropped: %s", turn.run_id, one_line(error))

    async def _resumed(self, state: StateSnapshot) -> Resumed | None:
        if not state.interrupts or not state.metadata or not state.created_at:
            return None
        waited = datetime.now(UTC) - datetime.fromisoformat(state.created_at)
        run = await self.records.run(state.metadata.get("run_id", ""))
        return Resumed(run.run_id, run.trace, round(waited.total_seconds(), 1)) if run else None

    async def _settle(self, turn: AgentTurn, thread: Thread, answering: "Answering") -> None:
        try:
            await answering.settle(turn)
            await self.records.end(str(turn.run_id), turn.status or "failed")
            await self.note(turn, answering.asked.model)
        finally:
            await self._free(thread.thread_id)


@dataclass
class Answering:
    """One agent at work on one message, from where its thread stands."""

    graph: CompiledStateGraph
    config: RunnableConfig
    asked: UserInput
    state: StateSnapshot
    partial: str = ""
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.seen.update(message.id for message in _messages(self.state) if message.id)

    async def work(self, turn: AgentTurn) -> None:
        """Run the agent to its end or to its next question, emitting what clients see."""
        modes: list[StreamMode] = ["messages", "updates", "custom"]
        chunks = self.graph.astream(self._input(), self.config, stream_mode=modes, subgraphs=True)
        async with aclosing(cast("AsyncGenerator[Any]", chunks)):
            async for path, mode, chunk in chunks:
                for item in self._seen_by_clients(turn, mode, chunk, path):
                    await turn.emit(item)

    async def settle(self, turn: AgentTurn) -> None:
        """Leave the thread fit for its next turn, with what was said until this one was stopped."""
        turn.answer = turn.answer or self.partial
        if turn.status in ("completed", "waiting"):
            return
        with untraced():
            config = RunnableConfig(configurable=self.config.get("configurable", {}))
            state = await self.graph.aget_state(config)
            messages = _messages(state)
            kept = self._kept(messages)
            if self.partial and not (messages and messages[-1].text == self.partial):
                kept.append(stopped(self.partial))
            # Also where nothing is new: a question left open would take the next message for its answer.
            await self.graph.aupdate_state(config, {"messages": kept}, as_node=START)

    def _input(self) -> Any:
        if self.state.interrupts:
            return Command(resume={waiting.id: self.asked.message for waiting in self.state.interrupts})
        return {"messages": [*closed(_messages(self.state)), self._question]}

    @cached_property
    def _question(self) -> HumanMessage:
        return HumanMessage(self.asked.message, id=str(uuid4()))

    def _kept(self, messages: Sequence[AnyMessage]) -> list[AnyMessage]:
        was_heard = bool(self.state.interrupts) or self._question.id in {message.id for message in messages}
        return closed(messages) or last_turn(messages) if was_heard else [*closed(messages), self._question]

    def _seen_by_clients(self, turn: AgentTurn, mode: str, chunk: Any, path: Sequence[str]) -> Iterator[StreamEvent]:
        agent = path[-1] if path else None
        if mode == "messages":
            yield from self._tokens(chunk[0], agent)
        elif mode == "custom":
            yield from in_custom(chunk)
        elif "__interrupt__" in chunk:
            for waiting in chunk["__interrupt__"]:
                # A subgraph's question is told by each graph around it, too.
                if turn.ask(waiting.id, waiting.value):
                    yield InterruptEvent(id=waiting.id, value=waiting.value)
        else:
            for update in chunk.values():
                yield from self._messages(turn, update, agent)

    def _tokens(self, message: BaseMessage, agent: str | None) -> Iterator[StreamEvent]:
        if not isinstance(message, AIMessageChunk) or not message.text:
            return
        self.partial += message.text
        if isinstance(self.asked, StreamInput) and self.asked.stream_tokens:
            yield TokenEvent(content=message.text, agent=agent)

    def _messages(self, turn: AgentTurn, update: object, agent: str | None) -> Iterator[StreamEvent]:
        for message in in_update(update):
            if message.id in self.seen or isinstance(message, HumanMessage):
                continue
            self.seen.add(message.id or "")
            if isinstance(message, AIMessage):
                self.partial, turn.answer = "", message.text or turn.answer
            trace_id = turn.trace.trace_id if turn.trace else None
            if shown := to_chat(message, str(turn.run_id), trace_id):
                yield MessageEvent(content=shown, agent=agent)


def run_event(turn: AgentTurn) -> RunEvent:
    """Return the event that a stream begins with."""
    trace = turn.trace
    return RunEvent(
        run_id=str(turn.run_id),
        trace_id=trace.trace_id if trace else None,
        thread_id=turn.session_id,
        sampled=turn.sampled,
        trace_url=trace.url if trace else None,
    )


def unknown_thread(thread_id: str) -> HTTPException:
    """Return the answer to one who asks for a thread that is not there, or not theirs."""
    return HTTPException(404, f"There is no thread {thread_id}.")


def _busy(thread_id: str) -> HTTPException:
    return HTTPException(409, f"Thread {thread_id} is answering already: wait for its end, or cancel it.")


def _messages(state: StateSnapshot) -> Sequence[AnyMessage]:
    return state.values.get("messages", [])


def run_of(turn: AgentTurn, key: str, thread: Thread, asked: UserInput, state: StateSnapshot) -> Run:
    """Return the record that the run of this turn begins with."""
    return Run(
        run_id=str(turn.run_id),
        thread_id=thread.thread_id,
        user_id=thread.user_id,
        agent=key,
        position=len(_messages(state)),
        message=asked.message,
        trace_id=turn.trace.trace_id if turn.trace else None,
        span_id=turn.trace.span_id if turn.trace else None,
        sampled=bool(turn.trace and turn.trace.sampled),
        resumed=bool(state.interrupts),
    )


def config_of(turn: AgentTurn, key: str, thread: Thread, asked: UserInput) -> RunnableConfig:
    """Return what the turn's graph runs with."""
    ids = {"trace_id": turn.trace.trace_id} if turn.trace else {}
    # What stands here is saved with every checkpoint.
    ids |= {"run_id": str(turn.run_id), "session_id": thread.thread_id, "agent_name": key}
    configurable = {**asked.agent_config, "thread_id": thread.thread_id, "model": asked.model, **ids}
    return RunnableConfig(
        run_id=turn.run_id,
        recursion_limit=MAX_STEPS,
        configurable=configurable,
        callbacks=[Gate(turn), Usage(turn.counts)],
    )
