"""The parts of the service that outlive its process."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database.availability import Availability
from app.database.thread_locks import ThreadLocks
from app.database.thread_store import ThreadStore

if TYPE_CHECKING:
    # Postgres's driver takes time to load, and SQLite does not need it.
    from app.database.postgres_checkpoints import PostgresCheckpoints
    from app.database.sqlite_checkpoints import SqliteCheckpoints


# The connections of a process: those that stay open, and further ones while many turns need theirs.
POOL_SIZE, POOL_OVERFLOW = 10, 10
MAX_CONNECTIONS = POOL_SIZE + POOL_OVERFLOW


@dataclass(frozen=True)
class Database:
    """An open database: its engine, threads and runs, checkpoints, locks on threads, and whether it can be used.

    `compact` returns space that is no longer needed to the file system, where the database does not reuse it itself.
    """

    engine: AsyncEngine
    store: ThreadStore
    checkpoints: "PostgresCheckpoints | SqliteCheckpoints"
    thread_locks: ThreadLocks
    availability: Availability
    compact: Callable[[], Coroutine[Any, Any, None]]

    @property
    def connections_in_use(self) -> int:
        """How many of the engine's connections are in use, of at most `MAX_CONNECTIONS`."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - as both databases are opened
        return pool.checkedout()
