"""Refuse the writes of an execution that another process has taken over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


@dataclass(frozen=True)
class Fence:
    """A query that finds a row as long as the execution may write, and the error once it may not."""

    engine: AsyncEngine
    current: Select[Any]
    stale: Callable[[], Exception]

    async def check(self) -> None:
        """Raise unless the execution may write."""
        async with self.engine.connect() as connection:
            await self._check(connection, self.current)

    async def hold(self, connection: AsyncConnection) -> None:
        """Raise unless the execution may write until the end of this transaction: nobody takes it over before."""
        # A process that is stopped in the transaction would keep the row locked; not every pooler limits that.
        limited = self.current.add_columns(func.set_config("idle_in_transaction_session_timeout", "5000", True))
        await self._check(connection, limited.with_for_update(read=True))

    async def _check(self, connection: AsyncConnection, query: Select[Any]) -> None:
        if await connection.scalar(query) is None:
            raise self.stale()
