"""Where threads, runs and checkpoints are kept: Postgres for many processes, SQLite for one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

from anyio import Path
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.claims import AdvisoryLocks, Alone, Claims
from app.records import Records, make_tables

POOL = 10
# Tells our making of tables from everybody else's locks.
_SETUP = 5_417_093_218


@dataclass(frozen=True)
class Database:
    """The parts of the service that outlive its process."""

    engine: AsyncEngine
    records: Records
    checkpoints: BaseCheckpointSaver
    claims: Claims


@asynccontextmanager
async def open_sqlite(folder: PathLike[str]) -> AsyncIterator[Database]:
    """Yield the database in the files of this folder."""
    await Path(folder).mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(f"sqlite+aiosqlite:///{Path(folder) / 'service.db'}")
    event.listen(engine.sync_engine, "connect", _use_wal)
    async with AsyncSqliteSaver.from_conn_string(str(Path(folder) / "checkpoints.db")) as saver:
        try:
            await make_tables(engine)
            yield Database(engine, Records(engine), saver, Alone())
        finally:
            await engine.dispose()


@asynccontextmanager
async def open_postgres(url: str) -> AsyncIterator[Database]:
    """Yield the database at this address, its connections pooled."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+psycopg"), pool_size=POOL, pool_pre_ping=True)
    options: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: Any = AsyncConnectionPool(
        url, min_size=1, max_size=POOL, kwargs=options, open=False, check=AsyncConnectionPool.check_connection
    )
    claims = AdvisoryLocks(engine)
    try:
        async with pool:
            saver = AsyncPostgresSaver(pool)
            await _set_up(engine, saver)
            yield Database(engine, Records(engine), saver, claims)
    finally:
        await claims.close()
        await engine.dispose()


async def _set_up(engine: AsyncEngine, saver: AsyncPostgresSaver) -> None:
    # Two processes that make the same table at once fail. In autocommit: a transaction would block their indexes.
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text(f"select pg_advisory_lock({_SETUP})"))
        try:
            await make_tables(engine)
            await saver.setup()
        finally:
            await connection.execute(text(f"select pg_advisory_unlock({_SETUP})"))


def _use_wal(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
