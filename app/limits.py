"""How much one user may ask for: turns at once, messages a minute, tokens a day; counted in the database."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import ceil
from uuid import uuid4

from fastapi import HTTPException
from sqlalchemy import (
    Column,
    Float,
    Integer,
    Select,
    String,
    Table,
    delete,
    exists,
    func,
    insert,
    select,
    text,
    union,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.database.thread_store import UNFINISHED, runs, tables
from app.runs.store import FINAL
from app.runs.store import runs as background_runs
from app.settings import ServiceSettings

# The turns of the last day. Not the threads' own rows, because a user may delete these.
admitted = Table(
    "admitted_turns",
    tables,
    Column("run_id", String, primary_key=True),
    Column("user_id", String, nullable=False, index=True),
    Column("at", Float, nullable=False, index=True),
    # None until the turn has ended.
    Column("tokens", Integer),
)

MINUTE_S, DAY_S = 60, 86_400
# When to try again while other turns are running, whose ends are not known.
TURN_RETRY_S = 5
# For how long a turn counts as running that is admitted, and whose run is not stored yet.
BEGINS_WITHIN_S = 30


@dataclass(frozen=True)
class Limits:
    """The limits of each user over all processes of the database; None for no limit."""

    engine: AsyncEngine
    turns: int | None = None
    messages_per_minute: int | None = None
    tokens_per_day: int | None = None

    @property
    def exist(self) -> bool:
        """Whether there is any limit; otherwise nothing is counted."""
        return any(limit is not None for limit in (self.turns, self.messages_per_minute, self.tokens_per_day))

    @asynccontextmanager
    async def admit(self, user_id: str) -> AsyncIterator[str]:
        """Yield the id of a run that the block begins; raise 429 beyond a limit. A failed block does not count."""
        run_id = str(uuid4())
        if self.exist:
            await self._admit(run_id, user_id)
        try:
            yield run_id
        except BaseException:
            if self.exist:
                await self._withdraw(run_id)
            raise

    async def record(self, run_id: str, tokens: int) -> None:
        """Add tokens that the run has used."""
        if self.exist:
            used = func.coalesce(admitted.c.tokens, 0) + tokens
            async with self.engine.begin() as connection:
                await connection.execute(update(admitted).where(admitted.c.run_id == run_id).values(tokens=used))

    async def _admit(self, run_id: str, user_id: str) -> None:
        now = time.time()
        async with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                lock = text("select pg_advisory_xact_lock(hashtextextended(:key, 0))")
                await connection.execute(lock, {"key": f"-limits/{user_id}"})
            # In SQLite this change locks the database until the end of the transaction.
            await connection.execute(delete(admitted).where(admitted.c.at < now - DAY_S))
            await self._check(connection, user_id, now)
            await connection.execute(insert(admitted).values(run_id=run_id, user_id=user_id, at=now))

    async def _withdraw(self, run_id: str) -> None:
        # Without the database it counts until it is too old.
        with suppress(SQLAlchemyError):
            async with self.engine.begin() as connection:
                await connection.execute(delete(admitted).where(admitted.c.run_id == run_id))

    async def _check(self, connection: AsyncConnection, user_id: str, now: float) -> None:
        if self.turns is not None and await connection.scalar(_running(user_id, now)) >= self.turns:
            raise _refusal(f"At most {self.turns} of your turns may run at once", TURN_RETRY_S)
        latest = select(admitted.c.at, admitted.c.tokens).where(admitted.c.user_id == user_id)
        rows = (await connection.execute(latest.order_by(admitted.c.at))).all()
        if (most := self.messages_per_minute) is not None:
            sent = [row.at for row in rows if row.at > now - MINUTE_S]
            if len(sent) >= most:
                raise _refusal(f"You have sent {most} messages within a minute", sent[-most] + MINUTE_S - now)
        if (most := self.tokens_per_day) is not None:
            used = [(row.at, row.tokens or 0) for row in rows]
            if (total := sum(tokens for _, tokens in used)) >= most:
                free_at = _falls_below(most, total, used) + DAY_S
                raise _refusal(f"You have used {total:,} of {most:,} tokens within a day", free_at - now)


def limits_of(settings: ServiceSettings, engine: AsyncEngine) -> Limits:
    """Return the limits of the settings."""
    return Limits(engine, settings.max_turns_per_user, settings.max_messages_per_minute, settings.max_tokens_per_day)


def _running(user_id: str, now: float) -> Select:
    """Return the query that counts the user's turns and background runs, including those that are about to begin."""
    is_stored = exists().where(runs.c.run_id == admitted.c.run_id)
    is_queued = exists().where(background_runs.c.run_id == admitted.c.run_id)
    found = union(
        select(runs.c.run_id).where(runs.c.user_id == user_id, runs.c.status.in_(UNFINISHED)),
        select(background_runs.c.run_id).where(
            background_runs.c.user_id == user_id, background_runs.c.status.not_in(FINAL)
        ),
        select(admitted.c.run_id).where(
            admitted.c.user_id == user_id,
            admitted.c.tokens.is_(None),
            admitted.c.at > now - BEGINS_WITHIN_S,
            ~is_stored,
            ~is_queued,
        ),
    ).subquery()
    return select(func.count()).select_from(found)


def _falls_below(most: int, total: int, used: Sequence[tuple[float, int]]) -> float:
    """Return the time of the turn without which, and without those before it, the total is below the limit."""
    for at, tokens in used:
        total -= tokens
        if total < most:
            return at
    return used[-1][0]


def _refusal(sentence: str, wait_s: float) -> HTTPException:
    seconds = max(1, ceil(wait_s))
    return HTTPException(429, f"{sentence}: try again in {_in_words(seconds)}.", {"Retry-After": str(seconds)})


def _in_words(seconds: int) -> str:
    minutes = ceil(seconds / 60)
    if seconds < 120:
        return f"{seconds} s"
    return f"{minutes} minutes" if minutes < 120 else f"{ceil(minutes / 60)} hours"
