"""Threads, runs and checkpoints in Postgres, for many processes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from psycopg import AsyncConnection, InterfaceError, OperationalError, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection as Session
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.database.availability import Availability
from app.database.database import POOL_OVERFLOW, POOL_SIZE, Database
from app.database.pooler import TRANSACTION_TIMEOUTS, check_sessions
from app.database.postgres_checkpoints import PostgresCheckpoints
from app.database.postgres_connections import PATIENCE_S, Connections, is_outage
from app.database.thread_store import ThreadStore, create_tables
from telemetry.settings import SettingsError

PING_INTERVAL_S = 0.5
# How long a caller waits for a connection while many others use theirs. An outage ends all of them at once.
_POOL_TIMEOUT_S = 5.0
# No thread has this id: ids of threads start with a letter or a digit.
_TABLES_LOCK = "-tables"
_UNREADABLE = SettingsError(
    "DATABASE_URL cannot be parsed: write it as postgresql://user:password@host/name, "
    "with special characters in the password percent-encoded."
)


class AdvisoryLocks:
    """Thread locks as advisory locks of one Postgres session; the server releases them when the process dies."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._session: Session | None = None
        self._mutex = asyncio.Lock()
        # The threads that this process has locked, and those that a lost session has unlocked.
        self._held: set[str] = set()
        self._unlocked: set[str] = set()
        self._is_closed = False

    async def acquire(self, thread_id: str) -> bool:
        """Return whether no other process holds the lock."""
        try:
            locked = await self._call("pg_try_advisory_lock", thread_id)
        except DBAPIError:
            # The server was unavailable and the session is gone: try once more in a new one.
            locked = await self._call("pg_try_advisory_lock", thread_id)
        if locked:
            self._held.add(thread_id)
        return locked

    async def release(self, thread_id: str) -> None:
        """Unlock the thread."""
        self._held.discard(thread_id)
        self._unlocked.discard(thread_id)
        # A session that is gone has released everything.
        with suppress(DBAPIError, InterfaceError):
            await self._call("pg_advisory_unlock", thread_id)

    async def check(self) -> None:
        """Raise unless the server answers; restore the locks of a lost session that are still free."""
        async with self._mutex:
            session = await self._connected()
            try:
                await session.execute(text("select 1"))
                for thread_id in list(self._unlocked):
                    if await _call(session, "pg_try_advisory_lock", thread_id):
                        self._unlocked.discard(thread_id)
            except SQLAlchemyError:
                await self._close_session()
                raise

    async def close(self) -> None:
        """Release every lock; no session is opened any more."""
        self._is_closed = True
        self._held.clear()
        # For what is under way, if the server answers.
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S), self._mutex:
                pass
        await self._close_session()

    async def _close_session(self) -> None:
        session, self._session = self._session, None
        if session:
            # In the pool the connection would keep its locks.
            await session.invalidate()
            await session.close()

    async def _call(self, function: str, thread_id: str) -> bool:
        # A statement that is cancelled with its caller would leave the session, and all locks, in an unknown state.
        calling = asyncio.ensure_future(self._call_in_turn(function, thread_id))
        calling.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(calling)

    async def _call_in_turn(self, function: str, thread_id: str) -> bool:
        async with self._mutex:
            session = await self._connected()
            try:
                return await _call(session, function, thread_id)
            except SQLAlchemyError:
                await self._close_session()
                raise

    async def _connected(self) -> Session:
        if self._session is None:
            self._session = await self._engine.connect()
            self._unlocked = set(self._held)
        if self._is_closed:
            # A ping that began before: nobody else would close its session.
            await self._close_session()
            raise InterfaceError("the locks are closed")
        return self._session


async def _call(session: Session, function: str, thread_id: str) -> bool:
    statement = text(f"select {function}(hashtextextended(:thread, 0))")
    return bool((await session.execute(statement, {"thread": thread_id})).scalar())


@asynccontextmanager
async def open_postgres(url: str, pooler_url: str | None = None) -> AsyncIterator[Database]:
    """Yield the database at this address, with pooled connections and its tables created.

    With `pooler_url` everything but locks and tables goes through that pooler, which needs no sessions. Raises
    `SettingsError` if the address itself leads to a pooler without sessions.
    """
    address, session_address = _parse_url(pooler_url or url), _parse_url(url)
    direct = Connections(url)
    used = Connections(pooler_url, pooled=True) if pooler_url else direct

    def creator(connections: Connections) -> Callable[[], Awaitable[AsyncConnection[Any]]]:
        async def connect_if_usable() -> AsyncConnection[Any]:
            if not availability.is_usable:
                raise OperationalError("the server does not answer")
            return await connections.connect()

        return connect_if_usable

    async def ping() -> None:
        # On a separate connection, while no other can be opened.
        await (direct.answered(locks.check()) if availability.is_usable else direct.ping())
        if used is not direct:
            await used.ping()

    def shut_down() -> None:
        direct.shut_down()
        used.shut_down()

    engine = create_async_engine(
        address,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_pre_ping=True,
        pool_timeout=_POOL_TIMEOUT_S,
        async_creator=creator(used),
    )
    if used is not direct:
        event.listen(engine.sync_engine, "begin", _limit_transaction)
    session_engine = create_async_engine(session_address, poolclass=NullPool, async_creator=creator(direct))
    # A separate session, which also shows whether the server answers.
    locks = AdvisoryLocks(session_engine)
    availability = Availability(ping, is_outage, on_lost=shut_down, interval_s=PING_INTERVAL_S)
    try:
        await check_sessions(direct, has_pooler=used is not direct)
        await _create_tables(session_engine)
        async with engine.connect():
            pass  # it raises where the pooler cannot be used
        checkpoints = PostgresCheckpoints(engine)
        direct.patience_s = used.patience_s = PATIENCE_S
        async with availability.watch():
            yield Database(engine, ThreadStore(engine), checkpoints, locks, availability, _leave_to_autovacuum)
    finally:
        await locks.close()
        await engine.dispose()


def _limit_transaction(connection: Connection) -> None:
    # Whoever is stopped within a transaction keeps its rows from others; a pooler takes no options of a session.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql(TRANSACTION_TIMEOUTS)


async def _leave_to_autovacuum() -> None:
    """Do nothing: the server makes unused space available by itself."""


def _parse_url(url: str) -> URL:
    try:
        parts = conninfo_to_dict(url)
        address = make_url(url).set(drivername="postgresql+psycopg")
    except (ProgrammingError, ArgumentError, ValueError):
        raise _UNREADABLE from None  # their messages may contain the password
    if "@" in f"{parts.get('host')}{parts.get('dbname')}":
        raise _UNREADABLE  # part of a password, parsed as a name that the error shows
    return address


async def _create_tables(engine: AsyncEngine) -> None:
    # Two processes that create the same table at once fail. The lock is polled, not awaited in the database: an index
    # is built without locking its table, and waits for every session that waits within the database.
    locks = AdvisoryLocks(engine)
    try:
        while not await locks.acquire(_TABLES_LOCK):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(0.1)
        await create_tables(engine)
        await PostgresCheckpoints(engine).setup()
    finally:
        await locks.close()
