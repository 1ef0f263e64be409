"""Which threads are being answered, among all processes that share a database."""

import asyncio
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Claims(Protocol):
    """Who takes a thread has it alone until it is freed, or the process dies."""

    async def take(self, thread_id: str) -> bool:
        """Return whether the thread could be taken."""
        ...

    async def free(self, thread_id: str) -> None:
        """Let others take the thread."""
        ...


class Alone:
    """The claims of a process that has its database for itself."""

    async def take(self, thread_id: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return that it could."""
        return True

    async def free(self, thread_id: str) -> None:
        """Do nothing."""


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
            # The server has been away, and the session with it.
            return await self._ask("pg_try_advisory_lock", thread_id)

    async def free(self, thread_id: str) -> None:
        """Let others have it."""
        await self._ask("pg_advisory_unlock", thread_id)

    async def close(self) -> None:
        """Let go of everything."""
        if self._session:
            await self._session.close()

    async def _ask(self, function: str, thread_id: str) -> bool:
        async with self._one_at_a_time:
            if self._session is None or self._session.invalidated:
                self._session = await self._engine.connect()
            asked = text(f"select {function}(hashtextextended(:thread, 0))")
            return bool((await self._session.execute(asked, {"thread": thread_id})).scalar())
