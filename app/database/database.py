"""Where threads, runs and checkpoints are kept."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.database.claims import Alone, Claims
from app.database.records import Records, make_tables
from app.settings import Settings
from telemetry.settings import SettingsError, unusable

_SERVICE, _CHECKPOINTS = "service.db", "checkpoints.db"
# Survives the process, if not the machine; waiting for the disk at every step of every turn, turns wait in line.
_SYNC = "PRAGMA synchronous=NORMAL"


@dataclass(frozen=True)
class Database:
    """The parts of the service that outlive its process."""

    engine: AsyncEngine
    records: Records
    checkpoints: BaseCheckpointSaver
    claims: Claims


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Yield Postgres, for many processes, or SQLite, for one; raises `SettingsError` where it cannot be used."""
    async with AsyncExitStack() as opened:
        try:
            database = await opened.enter_async_context(_open(settings))
        except (OSError, sqlite3.DatabaseError, SQLAlchemyError) as error:
            raise _refusal(settings, error) from error
        yield database


def _refusal(settings: Settings, error: Exception) -> SettingsError:
    cause = (isinstance(error, DBAPIError) and error.orig) or error
    if settings.database_url is None:
        return settings.no_folder(cause)
    return unusable("DATABASE_URL", cause, "start the server, or correct its address, name or password")


def _open(settings: Settings) -> AbstractAsyncContextManager[Database]:
    if settings.postgres_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        for name in (_SERVICE, _CHECKPOINTS):
            # Not by aiosqlite: where it fails, its thread speaks to an event loop that has gone.
            sqlite3.connect(settings.data_dir / name).close()
        return _open_sqlite(settings.data_dir)
    from app.database.postgres import open_postgres  # its driver takes time to load, which SQLite does without

    return open_postgres(settings.postgres_url)


@asynccontextmanager
async def _open_sqlite(folder: Path) -> AsyncIterator[Database]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / _SERVICE}")
    event.listen(engine.sync_engine, "connect", _use_wal)
    try:
        async with AsyncSqliteSaver.from_conn_string(str(folder / _CHECKPOINTS)) as saver:
            await saver.conn.execute(_SYNC)
            await make_tables(engine)
            yield Database(engine, Records(engine), saver, Alone())
    finally:
        await engine.dispose()


def _use_wal(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute(_SYNC)
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
