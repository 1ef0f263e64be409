"""Threads, runs and checkpoints in two SQLite files, for one process."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from app.database.availability import Availability
from app.database.database import POOL_OVERFLOW, POOL_SIZE, Database
from app.database.sqlite_checkpoints import SqliteCheckpoints
from app.database.thread_locks import NoThreadLocks
from app.database.thread_store import ThreadStore, create_tables
from telemetry.delivery.lock import LockedError, open_locked
from telemetry.span import one_line

logger = logging.getLogger(__name__)

_SERVICE, _CHECKPOINTS = "service.db", "checkpoints.db"
# The file of background runs, which DBOS opens.
_ENGINE = "engine.db"
_LOCK = "service.lock"
# Commits survive the process, but not a power failure. Waiting for the disk at every step would delay the turns.
_SYNCHRONOUS = "PRAGMA synchronous=NORMAL"
# How long a statement waits for a lock that another process holds.
_WAIT_S = 1.0
# How long a caller waits for a connection while many others use theirs.
_POOL_TIMEOUT_S = 5.0
_BUSY_TIMEOUT = f"PRAGMA busy_timeout={_WAIT_S * 1000:.0f}"
_MEGABYTE = 1_000_000
# How many unused pages are returned to the file system in one transaction, which others wait for.
_PAGES = 1000
# Errors of a file that cannot be used now: locked, on a full or failing disk, not to be opened, no memory. All others
# are about the statement, or the file is damaged.
_OUTAGES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}


class DamagedFileError(Exception):
    """A file is no database any more, or parts of it cannot be read."""

    def __init__(self, file: Path, found: str) -> None:
        super().__init__(f"{file} is damaged: {' '.join(found.split())}")
        self.file = file


class FolderInUseError(Exception):
    """Another process has the database of this folder open."""


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[Database]:
    """Yield the database in this folder, which is created if it does not exist.

    Raises `FolderInUseError` if another process has it open, `DamagedFileError`, `OSError` or `sqlite3.Error`.
    """
    with _locked(folder):
        async with _open(folder) as database:
            yield database


@asynccontextmanager
async def _open(folder: Path) -> AsyncIterator[Database]:
    _create_files(folder)
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{folder / _SERVICE}",
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT_S,
    )
    event.listen(engine.sync_engine, "connect", _configure_connection)
    try:
        async with SqliteCheckpoints.from_conn_string(str(folder / _CHECKPOINTS)) as opened:
            saver = cast("SqliteCheckpoints", opened)  # it is annotated as the class that it is inherited from
            await saver.conn.execute(_SYNCHRONOUS)
            await saver.conn.execute(_BUSY_TIMEOUT)
            # A thread may be deleted before any message is in it.
            await saver.setup()
            await create_tables(engine)
            availability = Availability(lambda: asyncio.to_thread(_check_writable, folder), is_outage)
            async with availability.watch():
                compact = _Compaction(folder, saver).run
                yield Database(engine, ThreadStore(engine), saver, NoThreadLocks(), availability, compact)
    finally:
        await engine.dispose()


def is_outage(error: BaseException) -> bool:
    """Return whether a file cannot be used now, rather than that a statement is wrong or the file is damaged."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF in _OUTAGES
    return isinstance(error, PoolTimeoutError)


@dataclass
class _Compaction:
    """Returns unused pages of the files to the file system."""

    folder: Path
    checkpoints: SqliteCheckpoints

    async def run(self) -> None:
        """Shrink the files by what they no longer use, as far as nobody else is writing to them."""
        try:
            if not await asyncio.to_thread(_has_auto_vacuum, self.folder / _CHECKPOINTS):
                # An earlier release kept every checkpoint: rewriting the file takes long if they are still in it.
                for thread_id in await self.checkpoints.earlier_bytes():
                    with suppress(NotImplementedError):
                        await self.checkpoints.aprune([thread_id])
            for name in (_SERVICE, _CHECKPOINTS):
                await asyncio.to_thread(_shrink, self.folder / name)
        except sqlite3.OperationalError as error:
            # It is locked, or the disk is full; what is unused now is used later.
            logger.info("unused space of the database is returned later: %s", one_line(error))


def _has_auto_vacuum(file: Path) -> bool:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("PRAGMA auto_vacuum").fetchone() != (0,)


def _enable_auto_vacuum(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("VACUUM")


def _shrink(file: Path) -> None:
    size, has_auto_vacuum = file.stat().st_size, _has_auto_vacuum(file)
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        if not has_auto_vacuum:
            _enable_auto_vacuum(connection)
        while connection.execute("PRAGMA freelist_count").fetchone() != (0,):
            connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if (freed := size - file.stat().st_size) > 10 * _MEGABYTE:
        logger.info("%s is %d MB smaller", file, freed // _MEGABYTE)


def _check_writable(folder: Path) -> None:
    for name in (_SERVICE, _CHECKPOINTS):
        with closing(sqlite3.connect(folder / name, timeout=_WAIT_S, isolation_level=None)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version={version}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Which threads are busy is known to the process alone, and so is which turns a dead one has left unfinished.
    try:
        descriptor = open_locked(folder / _LOCK)
    except LockedError as error:
        raise FolderInUseError(folder) from error
    try:
        yield
    finally:
        os.close(descriptor)


def _create_files(folder: Path) -> None:
    # They contain conversations. SQLite creates its further files with the same mode. The mode of an existing folder is
    # not changed, because it may be shared.
    for name in (_SERVICE, _CHECKPOINTS, _ENGINE):
        (folder / name).touch(mode=0o600)
        (folder / name).chmod(0o600)
    for name in (_SERVICE, _CHECKPOINTS):
        if not (folder / name).stat().st_size:
            with closing(sqlite3.connect(folder / name, isolation_level=None)) as connection:
                _enable_auto_vacuum(connection)
        # Not with aiosqlite: if opening fails, its thread reports to an event loop that is already closed.
        check_file(folder / name)


def check_file(file: Path) -> None:
    """Raise `DamagedFileError` where the structure of the file is damaged, which a flipped bit in a text is not."""
    with closing(sqlite3.connect(file)) as connection:
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            if is_outage(error):
                raise
            found = str(error)
    if found != "ok":
        raise DamagedFileError(file, found)


def _configure_connection(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute(_SYNCHRONOUS)
    cursor.execute(_BUSY_TIMEOUT)
    cursor.close()
