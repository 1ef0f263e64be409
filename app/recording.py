"""Record the events of a turn that outlives its reader: each is stored before any reader gets it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import anyio
from sqlalchemy.exc import SQLAlchemyError

from app.database.thread_store import StaleRunError
from app.database.turn_events import TurnEvents
from app.schema import InnerTokenEvent, ReasoningEvent, RunEvent, StreamEvent, TokenEvent
from telemetry import Turn

T = TypeVar("T")

# The events of so many seconds are stored at once.
INTERVAL_S = 0.1
# Beyond this, pieces of messages are no longer stored; the whole messages are.
MAX_BYTES = 4_000_000
# How many events a connected reader may be behind; then it reads the stored ones.
READER_BUFFER = 1000
_PIECES = (TokenEvent, ReasoningEvent, InnerTokenEvent)


class Retry(Protocol):
    """Repeats an operation until the database can be used."""

    async def __call__(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what the operation returns."""
        ...


@dataclass(frozen=True)
class RecordedEvent:
    """An event as it is sent; one without a number is not stored."""

    number: int | None
    body: str


@dataclass
class Recording:
    """Reads a turn to its end, whether anybody listens or not.

    Args:
        turn: the turn, whose first event is stored already.
        first: that event.
        events: where they are stored.
        retry: repeats what an unavailable database has interrupted.
        answer: returns what the turn has said so far.
        ending: returns the last events, once the turn is over.
    """

    turn: Turn[StreamEvent]
    first: RunEvent
    events: TurnEvents
    retry: Retry
    answer: Callable[[], str]
    ending: Callable[[], Sequence[StreamEvent]]
    _number: int = 1
    _bytes: int = 0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[RecordedEvent](READER_BUFFER)
        self._send.send_nowait(RecordedEvent(1, self.first.model_dump_json()))

    async def run(self) -> None:
        """Store the turn's events to the last one."""
        try:
            async with aclosing(self.turn.batches()) as batches:
                async for batch in batches:
                    await self._record(batch, self.answer())
                    # A transaction for every token would keep the database busy.
                    await asyncio.sleep(INTERVAL_S)
            await self._record(self.ending())
        except StaleRunError:
            self.turn.cancel("fenced")
        finally:
            self._send.close()
            self._ended.set()
        # What is left in an outage is deleted after the next turn.
        with suppress(SQLAlchemyError):
            await self.events.delete_old()

    async def ended(self) -> None:
        """Wait until the last event is stored."""
        await self._ended.wait()

    async def listen(self, silence_s: float) -> AsyncIterator[RecordedEvent | None]:
        """Yield the events as they are stored, and None after each silence of this length.

        For one reader. It ends without the last event if the reader is too slow, or the turn's process was too slow
        and another one has ended it.
        """
        try:
            while True:
                event: RecordedEvent | None = None
                with anyio.move_on_after(silence_s):
                    event = await self._receive.receive()
                yield event
        except anyio.EndOfStream:
            return
        finally:
            self._receive.close()

    async def _record(self, batch: Sequence[StreamEvent], answer: str | None = None) -> None:
        recorded: list[RecordedEvent] = []
        bodies: list[str] = []
        for event in batch:
            body = event.model_dump_json()
            if isinstance(event, _PIECES) and self._bytes > MAX_BYTES:
                recorded.append(RecordedEvent(None, body))
                continue
            bodies.append(body)
            self._bytes += len(body)
            recorded.append(RecordedEvent(self._number + len(bodies), body))
        if bodies:
            run_id, thread_id, after = str(self.turn.run_id), self.turn.session_id, self._number
            await self.retry(lambda: self.events.append(run_id, thread_id, after, bodies, answer))
            self._number += len(bodies)
        for event in recorded:
            self._publish(event)

    def _publish(self, event: RecordedEvent) -> None:
        try:
            self._send.send_nowait(event)
        except anyio.WouldBlock:
            # The reader continues with the stored events.
            self._send.close()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
