"""Threads, runs and checkpoints in Postgres, for many processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.database.database import Database
from app.database.records import Records, make_tables
from telemetry.settings import SettingsError

POOL = 10
# No thread's id: those begin with a letter or a digit.
_SETUP = "-tables"
_UNREADABLE = SettingsError(
    "DATABASE_URL cannot be read: write it as postgresql://user:password@host/name, "
    "with %-codes for special characters in the password."
)


class AdvisoryLocks:
    """Claims as locks of one Postgres session, which lets go of them when its process dies."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._session: AsyncConnection | None = None
        self._one_at_a_time = asyncio.Lock()

    async def take(self, thread_id: str) -> bool:
        """Return whether no other process had it."""
        try:
            return await self._ask("pg_try_advisory_lock", thread_id)
        except DBAPIError:
            # The server was away, and the session is gone: once more in a new one.
            return await self._ask("pg_try_advisory_lock", thread_id)

    async def free(self, thread_id: str) -> None:
        """Let others have it."""
        # A session that is gone has let go of everything.
        with suppress(DBAPIError):
            await self._ask("pg_advisory_unlock", thread_id)

    async def close(self) -> None:
        """Let go of everything."""
        session, self._session = self._session, None
        if session:
            # Back in the pool it would keep its locks.
            await session.invalidate()
            await session.close()

    async def _ask(self, function: str, thread_id: str) -> bool:
        asked = text(f"select {function}(hashtextextended(:thread, 0))")
        async with self._one_at_a_time:
            self._session = self._session or await self._engine.connect()
            try:
                return bool((await self._session.execute(asked, {"thread": thread_id})).scalar())
            except DBAPIError:
                await self.close()
                raise


@asynccontextmanager
async def open_postgres(url: str) -> AsyncIterator[Database]:
    """Yield the database at this address, its connections pooled, its tables made."""
    engine = create_async_engine(_address(url), pool_size=POOL, pool_pre_ping=True)
    options: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: Any = AsyncConnectionPool(
        url, min_size=1, max_size=POOL, kwargs=options, open=False, check=AsyncConnectionPool.check_connection
    )
    claims = AdvisoryLocks(engine)
    try:
        async with engine.connect():
            pass  # the pool would log each of its tries instead of failing
        async with pool:
            saver = AsyncPostgresSaver(pool)
            await _set_up(engine, saver)
            yield Database(engine, Records(engine), saver, claims)
    finally:
        await claims.close()
        await engine.dispose()


def _address(url: str) -> URL:
    try:
        read = conninfo_to_dict(url)
        address = make_url(url).set(drivername="postgresql+psycopg")
    except (ProgrammingError, ArgumentError, ValueError):
        raise _UNREADABLE from None  # what they say may hold the password
    if "@" in f"{read.get('host')}{read.get('dbname')}":
        raise _UNREADABLE  # half a password, taken for a name that is shown
    return address


async def _set_up(engine: AsyncEngine, saver: AsyncPostgresSaver) -> None:
    # Two processes that make the same table at once fail. Asked again and again: an index is made without locking the
    # table, which waits for whoever waits within the database.
    locks = AdvisoryLocks(engine)
    try:
        while not await locks.take(_SETUP):  # noqa: ASYNC110 - another process has it, whose event we cannot await
            await asyncio.sleep(0.1)
        await make_tables(engine)
        await saver.setup()
    finally:
        await locks.close()
