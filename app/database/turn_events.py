"""The events of turns that outlive their readers, stored until a while after each has ended."""

import time
from collections.abc import Sequence

from sqlalchemy import Column, Float, Integer, String, Table, Text, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.database.thread_store import RunRecord, StaleRunError, answer_so_far, tables

turn_events = Table(
    "turn_events",
    tables,
    Column("run_id", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("at", Float, nullable=False, index=True),
    Column("body", Text, nullable=False),
)

# How long the events are kept after the last one of their turn.
KEPT_S = 3600
# How the body of the last event begins.
_END = '{"type":"end"'
_ATTEMPTS = 5


class TurnEvents:
    """The stored events in the service's database, numbered from 1 in each turn."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def append(
        self, run_id: str, thread_id: str, after: int, bodies: Sequence[str], answer: str | None = None
    ) -> None:
        """Store the events that follow this number, and what the turn has said so far.

        Raise `StaleRunError` if another process has stored other events there. May be repeated.
        """
        now = time.time()
        rows = [
            {"run_id": run_id, "number": number, "thread_id": thread_id, "at": now, "body": body}
            for number, body in enumerate(bodies, after + 1)
        ]
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(turn_events), rows)
                if answer is not None:
                    await connection.execute(answer_so_far(run_id, answer))
        except IntegrityError:
            stored = [body for _, body in await self.after(run_id, after)]
            if stored[: len(bodies)] != list(bodies):
                raise StaleRunError(f"another process has ended the events of run {run_id}") from None

    async def end(self, run: RunRecord, bodies: Sequence[str]) -> None:
        """Store these as the last events of a turn whose process has died, unless it has none or has ended."""
        for attempt in range(_ATTEMPTS):
            last, body = await self._last(run.run_id)
            if last == 0 or body.startswith(_END):
                return
            try:
                await self.append(run.run_id, run.thread_id, last, bodies)
            except StaleRunError:
                # What the process stored last was not yet visible, or another process ends it as well.
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    async def after(self, run_id: str, number: int) -> Sequence[tuple[int, str]]:
        """Return the events after this number, with their numbers."""
        which = turn_events.c.run_id == run_id, turn_events.c.number > number
        query = select(turn_events.c.number, turn_events.c.body).where(*which).order_by(turn_events.c.number)
        async with self._engine.connect() as connection:
            return [(row.number, row.body) for row in await connection.execute(query)]

    async def last_number(self, run_id: str) -> int:
        """Return the number of the last event; 0 if none is stored."""
        number, _ = await self._last(run_id)
        return number

    async def has_ended(self, run_id: str) -> bool:
        """Return whether no event will follow: the turn's last one is stored, or none is stored any more."""
        number, body = await self._last(run_id)
        return number == 0 or body.startswith(_END)

    async def _last(self, run_id: str) -> tuple[int, str]:
        query = select(turn_events.c.number, turn_events.c.body).where(turn_events.c.run_id == run_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query.order_by(turn_events.c.number.desc()).limit(1))).first()
        return (row.number, row.body) if row else (0, "")

    async def delete_old(self) -> int:
        """Delete the events of turns without one for `KEPT_S` seconds; return how many."""
        since = time.time() - KEPT_S
        recent = select(turn_events.c.run_id).where(turn_events.c.at >= since)
        old = delete(turn_events).where(turn_events.c.at < since, turn_events.c.run_id.not_in(recent))
        async with self._engine.begin() as connection:
            return (await connection.execute(old)).rowcount


async def delete_events(connection: AsyncConnection, thread_id: str) -> None:
    """Delete the events of the thread's turns."""
    await connection.execute(delete(turn_events).where(turn_events.c.thread_id == thread_id))
