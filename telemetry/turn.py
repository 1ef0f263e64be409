"""A turn owns one run of an agent: its task, its cancellation, the end of its spans."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import Context, copy_context
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID
from weakref import finalize

import anyio
from opentelemetry import context as otel
from opentelemetry.trace import Span, get_current_span, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry import keep, provider
from telemetry.context import Resumed, Scope, stamps
from telemetry.failures import contained
from telemetry.instrumentors import end_runs
from telemetry.json_text import dump
from telemetry.span import TraceRef, fail, link_to, reference

logger = logging.getLogger(__name__)

T = TypeVar("T")
Outcome = Literal["completed", "failed", "cancelled", "waiting"]

Work = Callable[["Turn[Any]"], Awaitable[None]]

_TURN = otel.create_key("telemetry-turn")
# How far the agent may run ahead of a slow reader.
BUFFER = 64
# How long cancelled work may take to stop; then the turn ends without it.
PATIENCE_S = 0.1
# How long a turn may take to leave its thread in order, and a service that stops waits for its turns.
GRACE_S = 5.0

_running: "set[Turn[Any]]" = set()


def current_turn() -> "Turn[Any] | None":
    """Return the turn that the current code runs in."""
    found = otel.get_value(_TURN)
    return found if isinstance(found, Turn) else None


def _root() -> Span | None:
    span = get_current_span()
    return span if getattr(span, "parent", None) is None and span.is_recording() else None


class Turn(Generic[T]):
    """One run of an agent in a task of its own; iterate over it for what the work emits.

    Whatever happens to the reader, the work is cancelled at most once, and the turn's span and all that LangChain left
    open below it end exactly once. Work that does not heed its cancellation is left behind: it starts no new step.
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
        resumes: Resumed | None = None,
    ) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self.status: Outcome | None = None
        self.error: BaseException | None = None
        self.answer = ""
        self.questions: dict[str, str] = {}
        self.open_runs: set[UUID] = set()
        self.counts: Counter[str] = Counter()
        self._began = time.monotonic()
        self.first_token_ms: int | None = None
        self.duration_ms: int | None = None
        self._timeout_s = timeout_s
        self._work: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._ended = asyncio.Event()
        self.cause = ""
        self._root = _root()
        self._stream: Span | None = None
        scope = Scope(session_id=session_id, user_id=user_id, agent=agent, run_id=str(run_id), resumes=resumes)
        inside = scope.enter()
        self.span = provider.tracer().start_span(
            "turn", inside, attributes={"openinference.span.kind": "AGENT"}, links=link_to(resumes and resumes.trace)
        )
        if resumes:
            self.span.set_attribute("langfuse.observation.metadata.waited_s", resumes.waited_s)
        self._tell("input.value", message)
        self._inside = set_span_in_context(self.span, inside)
        self.kept = self.trace is not None and self.trace.sampled
        self._send, self._receive = anyio.create_memory_object_stream[T](BUFFER)
        # A turn may find no reader.
        finalize(self, self._receive.close)

    @property
    def trace(self) -> TraceRef | None:
        """The trace that it is recorded in, None with tracing off."""
        return reference(self.span)

    @property
    def sampled(self) -> bool | Literal["pending"]:
        """Whether the trace is recorded; pending where that is known only at the end of the turn."""
        recorded = self.trace is not None and self.trace.sampled
        return "pending" if recorded and keep.holds() else recorded

    @property
    def waits(self) -> bool:
        """Whether it has asked a person something."""
        return bool(self.questions)

    @property
    def stopping(self) -> bool:
        """Whether it was cancelled, so that no new step may start."""
        return bool(self.cause)

    def start(self, work: Work, settle: Work | None = None, *, streamed: bool = False) -> None:
        """Begin the work in a task whose context is the turn's.

        `settle` runs, undisturbed, when the outcome is known and before the turn's spans end. A `streamed` answer is
        one child span, with its first token, its counts and its end.
        """
        if streamed:
            self._stream = provider.tracer().start_span("stream", self._inside)
        loop = asyncio.get_running_loop()
        _running.add(self)
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
        """Return when the turn is over and its spans have ended."""
        await self._ended.wait()

    async def emit(self, item: T) -> None:
        """Hand an item to the reader, waiting while the reader is far behind."""
        self.counts["events"] += 1
        await self._send.send(item)

    def token(self) -> None:
        """Count a piece of the answer, and time the first."""
        if self.first_token_ms is None:
            self.first_token_ms = self._elapsed_ms()
        self.counts["tokens"] += 1

    def ask(self, key: str, question: Any) -> bool:
        """Note what a person has to answer before the agent goes on; returns whether this was not known."""
        known = key in self.questions
        self.questions[key] = ""
        with contained("note a question"):
            self.questions[key] = dump(question)
        return not known

    def cancel(self, cause: str) -> None:
        """End the work where it stands; only the first call has an effect."""
        if self._work and not self._over.is_set() and not self.cause:
            self.cause = cause
            self._work.cancel()
            self._work.get_loop().call_later(PATIENCE_S, self._over.set)

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield what the work emits, to its end; a reader that leaves cancels the work."""
        try:
            async for item in self._receive:
                yield item
        finally:
            await self.leave()

    async def listen(self, silence_s: float) -> AsyncIterator[T | None]:
        """Yield as iterating does, and None after each silence of this length."""
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
        """Cancel the work for a reader that goes, and return when the turn is over."""
        self.cancel("disconnect")
        self._receive.close()
        # The reader's own task may be cancelled over and over: the turn ends first all the same.
        with anyio.move_on_after(GRACE_S, shield=True):
            await self._ended.wait()

    def _stopped(self, work: "asyncio.Task[None]") -> None:
        if not work.cancelled():
            work.exception()  # else a late one is logged as never asked for
        self._over.set()

    async def _own(self, work: "asyncio.Task[None]", settle: Work | None) -> None:
        try:
            await self._over.wait()
            self._conclude(work)
            if settle:
                async with asyncio.timeout(GRACE_S):
                    await settle(self)
        except Exception:
            logger.exception("run %s could not be settled", self.run_id)
        finally:
            await self._close(left_behind=not work.done())

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)

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
        with contained("end a turn"):
            self._end(left_behind=left_behind)
        try:
            with contained("decide about a trace"):
                self.kept = await self._decide()
        finally:
            self._send.close()
            self._ended.set()
            _running.discard(self)

    async def _decide(self) -> bool:
        if not keep.holds() or not self.trace:
            return self.kept
        notable = self.error is not None or keep.is_slow(time.monotonic() - self._began)
        return await asyncio.to_thread(keep.decide, self.trace.trace_id, notable or None)

    def _end(self, *, left_behind: bool) -> None:
        self.status = self.status or "cancelled"
        self._end_stream()
        end_runs(list(self.open_runs), cancelled=self.stopping, abandoned=left_behind or not self.stopping)
        if self.error:
            fail(self.span, self.error)
        elif self.status == "cancelled":
            self.span.set_attributes({"cancelled": True, "langfuse.observation.level": "WARNING"})
        cause = {"turn.cause": self.cause} if self.cause else {}
        self.span.set_attributes({f"turn.{name}": value for name, value in self._figures().items()} | cause)
        self._tell("output.value", with_questions(self.answer, self._open_questions()))
        self.span.end()
        # What a thread that nobody could stop still starts stays in the trace, and says so.
        stamps(self._inside)["late"] = True

    def _open_questions(self) -> Iterable[str]:
        return self.questions.values() if self.status == "waiting" else ()

    def _end_stream(self) -> None:
        if self._stream:
            self._stream.set_attributes({f"stream.{name}": value for name, value in self._figures().items()})
            self._stream.end()

    def _figures(self) -> dict[str, AttributeValue]:
        first = {} if self.first_token_ms is None else {"first_token_ms": self.first_token_ms}
        return {"status": self.status or "running", **first, **self.counts}

    def _tell(self, key: str, text: str) -> None:
        # A backend takes a trace's input and output from its root, which may be the request.
        for span in (self.span, self._root):
            if text and span and span.is_recording():
                span.set_attribute(key, text)


def with_questions(answer: str, questions: Iterable[Any]) -> str:
    """Return the answer and, below it, what a person is asked."""
    return "\n\n".join(filter(None, (answer, *map(dump, questions))))


def cancel_turns(cause: str) -> None:
    """Cancel every turn that is under way in this process."""
    for turn in list(_running):
        turn.cancel(cause)


async def drain() -> None:
    """Cancel the turns that are under way in this event loop and wait, not long, until they have ended."""
    loop = asyncio.get_running_loop()
    ours = [turn for turn in list(_running) if turn._work and turn._work.get_loop() is loop]  # noqa: SLF001 - a turn's own module
    for turn in ours:
        turn.cancel("shutdown")
    with anyio.move_on_after(GRACE_S):
        for turn in ours:
            await turn.ended()


async def _run(work: Work, turn: Turn[Any]) -> None:
    await work(turn)


def _attached(inside: otel.Context) -> Context:
    context = copy_context()
    # This context was copied for a task and ends with it: there is nothing to detach.
    context.run(otel.attach, inside)
    return context
