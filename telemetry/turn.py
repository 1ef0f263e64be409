"""Run an agent as a turn, which owns the run's task, its cancellation and the end of its spans."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID
from weakref import WeakSet, finalize

import anyio
from opentelemetry import context as otel
from opentelemetry.trace import Span, get_current_span, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry import pipeline, tail_sampling
from telemetry.context import Resumed, Scope, scope_attributes
from telemetry.internal_errors import handle_internal_errors
from telemetry.otel.local_root import local_root
from telemetry.plain_data import safe_text
from telemetry.span import TraceRef, caller_of, fail, link_to, mark_cancelled, reference
from telemetry.turn_root import TurnRoot, outcome_of

logger = logging.getLogger(__name__)

T = TypeVar("T")
Outcome = Literal["completed", "failed", "cancelled", "waiting"]

Work = Callable[["Turn[Any]"], Awaitable[None]]

_TURN = otel.create_key("telemetry-turn")
# How many items the agent may be ahead of a slow reader.
BUFFER = 64
# How long cancelled work may take to stop; after that the turn ends without it.
PATIENCE_S = 0.1
# How long the end of a turn waits for `settle`, and how long a service that stops waits for its turns.
GRACE_S = 5.0


@dataclass(frozen=True)
class RunCloser:
    """The function that ends the spans of runs that are still open when their turn ends.

    `end_runs` gets their ids, whether they were `cancelled=`, and whether their threads are `abandoned=`.
    """

    end_runs: Callable[..., None]


def current_turn() -> "Turn[Any] | None":
    """Return the `Turn` that the current code runs in, or None.

    Example:
        >>> import telemetry
        >>> telemetry.current_turn() is None
        True
    """
    found = otel.get_value(_TURN)
    return found if isinstance(found, Turn) else None


def mark_turn(turn: object, context: otel.Context) -> otel.Context:
    """Return the context of code that runs in this turn."""
    return otel.set_value(_TURN, turn, context)


def in_turn() -> bool:
    """Return whether the current code runs in a turn of any kind."""
    return otel.get_value(_TURN) is not None


class Turn(Generic[T]):
    """One run of an agent in its own task; iterate over it to get the items that the work emits.

    Whatever happens to the reader, the work is cancelled at most once, and the turn's span and the LangChain spans
    below it end exactly once. The turn does not wait for work that ignores its cancellation; such work starts no new
    step.

    Args:
        agent: the agent's name, also the name of the trace.
        run_id: the id of the run.
        session_id: the conversation, `session.id`.
        user_id: whose turn it is, `user.id`.
        message: the question, the input of the span.
        timeout_s: seconds after which the work is cancelled and the turn fails; default: no limit.
        resumes: the run whose question this turn answers.

    Set `answer` to the text that is the output of the span.
    """

    def __init__(
        self,
        agent: str,
        *,
        run_id: UUID,
        session_id: str,
        user_id: str | None = None,
        message: str = "",
        timeout_s: float | None = None,
        price: tuple[float, float] | None = None,
        resumes: Resumed | None = None,
    ) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self.status: Outcome | None = None
        self.error: BaseException | None = None
        self.settled = True
        # The price of a million input and output tokens, in dollars.
        self.price = price
        self.answer = ""
        self.questions: dict[str, str] = {}
        self.open_runs: set[UUID] = set()
        self.counts: Counter[str] = Counter()
        self._started = time.monotonic()
        self.first_token_ms: int | None = None
        self.duration_ms: int | None = None
        self._timeout_s = timeout_s
        self._work: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._ended = asyncio.Event()
        self.cause = ""
        self._stream: Span | None = None
        around = local_root(get_current_span())
        scope = Scope(session_id=session_id, user_id=user_id, agent=agent, run_id=str(run_id), resumes=resumes)
        inside = scope.enter()
        self.span = pipeline.tracer().start_span(
            "turn", inside, attributes={"openinference.span.kind": "AGENT"}, links=link_to(resumes and resumes.trace)
        )
        if resumes:
            self.span.set_attribute("langfuse.observation.metadata.waited_s", resumes.waited_s)
        self._root = TurnRoot(around, self.span)
        # The span of another process that the trace continues.
        self.caller = caller_of(around or self.span)
        self._write("input", message)
        self._inside = set_span_in_context(self.span, inside)
        self.kept = self.trace is not None and self.trace.sampled
        self._send, self._receive = anyio.create_memory_object_stream[T](BUFFER)
        # A turn may have no reader.
        finalize(self, self._receive.close)

    @property
    def trace(self) -> TraceRef | None:
        """The trace of the turn, None with tracing off."""
        return reference(self.span)

    @property
    def sampled(self) -> bool | Literal["pending"]:
        """Whether the trace is recorded; pending if that is decided at the end of the turn."""
        recorded = self.trace is not None and self.trace.sampled
        return "pending" if recorded and tail_sampling.decides_at_end() else recorded

    @property
    def waits(self) -> bool:
        """Whether it waits for a person's answer to a question."""
        return bool(self.questions)

    @property
    def stopping(self) -> bool:
        """Whether it was cancelled, so that no new step may start."""
        return bool(self.cause)

    def start(self, work: Work, settle: Work | None = None, *, streamed: bool = False) -> None:
        """Start the work in a task with the turn's context.

        `settle` runs after the outcome is known; it is not cancelled with the work. The turn's spans end when it has
        returned, or after `GRACE_S` seconds without it: `settled` tells which, and `settle` continues. A `streamed`
        answer has a child span with its first token, its counts and its end.
        """
        if streamed:
            self._stream = pipeline.tracer().start_span("stream", self._inside)
        loop = asyncio.get_running_loop()
        pipeline.shared(RunningTurns).add(self)
        self._work = loop.create_task(_run(work, self), context=_attached(otel.set_value(_TURN, self, self._inside)))
        self._work.add_done_callback(self._stopped)
        self._owner = loop.create_task(self._own(self._work, settle), context=_attached(self._inside))
        if self._timeout_s:
            self._timer = loop.call_later(self._timeout_s, self.cancel, "timeout")

    def refuse(self, error: BaseException) -> None:
        """End a turn whose work could not be started."""
        self.status, self.error = "failed", error
        self._end(left_behind=False)

    async def ended(self) -> None:
        """Wait until the turn is over and its spans have ended."""
        await self._ended.wait()

    async def emit(self, item: T) -> None:
        """Send an item to the reader; wait while the reader is far behind."""
        self.counts["events"] += 1
        await self._send.send(item)

    def token(self) -> None:
        """Count a token of the answer, and note the time of the first."""
        if self.first_token_ms is None:
            self.first_token_ms = self._elapsed_ms()
        self.counts["tokens"] += 1

    def ask(self, key: str, question: Any) -> bool:
        """Add a question that a person has to answer before the agent continues; return whether its key is new."""
        known = key in self.questions
        self.questions[key] = ""
        with handle_internal_errors("record a question"):
            self.questions[key] = safe_text(question)
        return not known

    def cancel(self, cause: str) -> None:
        """Cancel the work; only the first call has an effect."""
        if self._work and not self._over.is_set() and not self.cause:
            self.cause = cause
            self._work.cancel()
            self._work.get_loop().call_later(PATIENCE_S, self._over.set)

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield the items that the work emits, to its end; a reader that leaves cancels the work."""
        try:
            async for item in self._receive:
                yield item
        finally:
            await self.leave()

    async def batches(self) -> AsyncGenerator[list[T]]:
        """Yield the items as iteration does, in each step all that were emitted since the last one."""
        try:
            async for item in self._receive:
                batch = [item]
                with suppress(anyio.WouldBlock, anyio.EndOfStream):
                    while True:
                        batch.append(self._receive.receive_nowait())
                yield batch
        finally:
            await self.leave()

    async def listen(self, silence_s: float) -> AsyncIterator[T | None]:
        """Yield items as iteration does, and None after each silence of this length."""
        try:
            while True:
                item: T | None = None
                with anyio.move_on_after(silence_s):
                    item = await self._receive.receive()
                yield item
        except anyio.EndOfStream:
            return
        finally:
            await self.leave()

    async def leave(self) -> None:
        """Cancel the work because its reader leaves, and return when the turn is over."""
        self.cancel("disconnect")
        self._receive.close()
        # The reader's own task may be cancelled repeatedly: it still waits for the end of the turn.
        with anyio.move_on_after(GRACE_S, shield=True):
            await self._ended.wait()

    def _stopped(self, work: "asyncio.Task[None]") -> None:
        if not work.cancelled():
            work.exception()  # otherwise asyncio logs a late one as never retrieved
        self._over.set()

    async def _own(self, work: "asyncio.Task[None]", settle: Work | None) -> None:
        try:
            await self._over.wait()
            self._conclude(work)
            if settle:
                self.settled = await self._settle(settle)
        finally:
            await self._close(left_behind=not work.done())

    async def _settle(self, settle: Work) -> bool:
        """Run `settle`; return whether it succeeded in time."""
        settling = asyncio.create_task(_run(settle, self))
        # The loop itself does not keep a task alive.
        pipeline.shared(_Settling).add(settling)
        settling.add_done_callback(self._on_settled)
        await asyncio.wait({settling}, timeout=GRACE_S)
        return settling.done() and not settling.cancelled() and settling.exception() is None

    def _on_settled(self, settling: "asyncio.Task[None]") -> None:
        pipeline.shared(_Settling).discard(settling)
        if not settling.cancelled() and (error := settling.exception()):
            logger.error("run %s could not be settled", self.run_id, exc_info=error)

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    def _conclude(self, work: "asyncio.Task[None]") -> None:
        self.duration_ms = self._elapsed_ms()
        failed = None if not work.done() or work.cancelled() else work.exception()
        if self.cause == "timeout":
            self.error = TimeoutError(f"the turn took longer than {self._timeout_s:g} s")
        elif not self.cause:
            self.error = RuntimeError("the agent cancelled itself") if work.cancelled() else failed
        if self.error:
            self.status = "failed"
        elif self.cause:
            self.status = "cancelled"
        else:
            self.status = "waiting" if self.waits else "completed"

    async def _close(self, *, left_behind: bool) -> None:
        if self._timer:
            self._timer.cancel()
        with handle_internal_errors("end a turn"):
            self._end(left_behind=left_behind)
        try:
            with handle_internal_errors("decide whether to keep a trace"):
                self.kept = await self._decide()
        finally:
            self._send.close()
            self._ended.set()
            pipeline.shared(RunningTurns).discard(self)

    async def _decide(self) -> bool:
        if not tail_sampling.decides_at_end() or not self.trace:
            return self.kept
        notable = self.error is not None or tail_sampling.is_slow(time.monotonic() - self._started)
        return await asyncio.to_thread(tail_sampling.keep_trace, self.trace.trace_id, notable or None)

    def _end(self, *, left_behind: bool) -> None:
        self.status = self.status or "cancelled"
        self._end_stream()
        if closer := pipeline.get(RunCloser):
            abandoned = left_behind or not self.stopping
            with _entered(mark_turn(self, otel.get_current())):
                closer.end_runs(list(self.open_runs), cancelled=self.stopping, abandoned=abandoned)
        if self.error:
            fail(self.span, self.error)
        elif self.status == "cancelled":
            mark_cancelled(self.span, self.cause)
        self._root.set_outcome(*outcome_of(self.error, self.cause if self.status == "cancelled" else ""))
        cause = {"turn.cause": self.cause} if self.cause else {}
        self.span.set_attributes({f"turn.{name}": value for name, value in self._figures().items()} | cause)
        self._write("output", with_questions(self.answer, self._open_questions()))
        self.span.end()
        # Spans that a thread starts after this, because it could not be stopped, are marked as late.
        scope_attributes(self._inside)["late"] = True

    def _open_questions(self) -> Iterable[str]:
        return self.questions.values() if self.status == "waiting" else ()

    def _end_stream(self) -> None:
        if self._stream:
            self._stream.set_attributes({f"stream.{name}": value for name, value in self._figures().items()})
            self._stream.end()

    def _figures(self) -> dict[str, AttributeValue]:
        first = {} if self.first_token_ms is None else {"first_token_ms": self.first_token_ms}
        return {"status": self.status or "running", **first, **self.counts}

    def _write(self, place: str, text: str) -> None:
        if text:
            self.span.set_attribute(f"{place}.value", text)
            self._root.write(place, text)


def with_questions(answer: str, questions: Iterable[Any]) -> str:
    """Return the answer, followed by the questions to a person."""
    return "\n\n".join(filter(None, (answer, *map(safe_text, questions))))


class _Settling(set["asyncio.Task[None]"]):
    """The `settle` tasks of turns that are over."""


class RunningTurns(set[Turn[Any]]):
    """The running turns of this process."""


class OpenTurn(Protocol):
    """A turn that the program runs itself, so that nobody but the program can cancel it."""

    def close(self, cause: str) -> None:
        """End its spans, as cancelled for this cause."""
        ...


class OpenTurns(WeakSet[OpenTurn]):
    """The turns of this process that the program runs itself."""


def close_turns(cause: str) -> None:
    """End the spans of the turns that still run: their work may go on, but the process does not wait for it."""
    for turn in list(pipeline.shared(OpenTurns)):
        with handle_internal_errors("end a turn"):
            turn.close(cause)


def cancel_turns(cause: str) -> None:
    """Cancel every running turn of this process.

    Args:
        cause: why, the attribute `turn.cause` of their spans.

    Example:
        >>> import telemetry
        >>> telemetry.cancel_turns("shutdown")
    """
    for turn in list(pipeline.shared(RunningTurns)):
        turn.cancel(cause)


async def drain() -> None:
    """Cancel the running turns of this event loop, and wait up to `GRACE_S` seconds until they have ended.

    Example:
        >>> import asyncio
        >>> import telemetry
        >>> asyncio.run(telemetry.drain())
    """
    loop = asyncio.get_running_loop()
    ours = [turn for turn in list(pipeline.shared(RunningTurns)) if turn._work and turn._work.get_loop() is loop]  # noqa: SLF001 - a turn's own module
    for turn in ours:
        turn.cancel("shutdown")
    with anyio.move_on_after(GRACE_S):
        for turn in ours:
            await turn.ended()


async def _run(work: Work, turn: Turn[Any]) -> None:
    await work(turn)


@contextmanager
def _entered(inside: otel.Context) -> Iterator[None]:
    token = otel.attach(inside)
    try:
        yield
    finally:
        otel.detach(token)


def _attached(inside: otel.Context) -> Context:
    context = copy_context()
    # This context was copied for a task and ends with it: there is nothing to detach.
    context.run(otel.attach, inside)
    return context
