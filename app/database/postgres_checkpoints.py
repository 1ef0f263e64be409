"""LangGraph's checkpoints in Postgres, on the connections of the service's own pool."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.postgres.base import BasePostgresSaver
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection as Session
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database.fence import Fence

# What pruning would delete, except calls of subgraphs that are over: their latest checkpoints are small.
_EARLIER_BYTES = """
WITH heads AS MATERIALIZED (
    SELECT DISTINCT ON (thread_id, checkpoint_ns)
        thread_id, checkpoint_ns, checkpoint_id, checkpoint -> 'channel_versions' AS versions
    FROM checkpoints ORDER BY thread_id, checkpoint_ns, checkpoint_id DESC
)
SELECT thread_id, sum(bytes)::bigint AS bytes FROM (
    SELECT thread_id, pg_column_size(stored.*) AS bytes FROM checkpoints AS stored
    JOIN heads USING (thread_id, checkpoint_ns) WHERE stored.checkpoint_id < heads.checkpoint_id
    UNION ALL
    SELECT thread_id, pg_column_size(stored.*) FROM checkpoint_writes AS stored
    JOIN heads USING (thread_id, checkpoint_ns) WHERE stored.checkpoint_id < heads.checkpoint_id
    UNION ALL
    SELECT thread_id, pg_column_size(stored.*) FROM checkpoint_blobs AS stored
    JOIN heads USING (thread_id, checkpoint_ns)
    WHERE stored.version IS DISTINCT FROM heads.versions ->> stored.channel
) AS earlier
GROUP BY thread_id
"""
_BYTES = """
SELECT (SELECT coalesce(sum(pg_column_size(stored.*)), 0) FROM checkpoints AS stored WHERE thread_id = :thread)
    + (SELECT coalesce(sum(pg_column_size(stored.*)), 0) FROM checkpoint_blobs AS stored WHERE thread_id = :thread)
    + (SELECT coalesce(sum(pg_column_size(stored.*)), 0) FROM checkpoint_writes AS stored WHERE thread_id = :thread)
"""


class PostgresCheckpoints(BasePostgresSaver):
    """A saver that uses a connection of the pool for each call, so that calls do not wait for each other."""

    def __init__(self, engine: AsyncEngine, fence: Fence | None = None) -> None:
        super().__init__()
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._fence = fence

    def fenced_by(self, fence: Fence) -> "PostgresCheckpoints":
        """Return a saver on the same connections, whose writes are refused once the fence is stale."""
        return PostgresCheckpoints(self._engine, fence)

    async def setup(self) -> None:
        """Create the tables that do not exist; an index of a large table may take longer than other statements."""
        async with self._engine.connect() as session:
            await session.execute(text("set statement_timeout = 0"))
            driver = (await session.get_raw_connection()).driver_connection
            assert isinstance(driver, AsyncConnection)  # noqa: S101 - the engine's driver is psycopg
            await AsyncPostgresSaver(driver).setup()
            await session.execute(text("reset statement_timeout"))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint, None if there is none."""
        async with self._saver() as saver:
            return await saver.aget_tuple(config)

    async def alist(self, config: RunnableConfig | None, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        """Yield the checkpoints, the latest first."""
        async with self._saver() as saver:
            async for checkpoint in saver.alist(config, **kwargs):
                yield checkpoint

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save the checkpoint."""
        async with self._writer() as saver:
            return await saver.aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save the writes."""
        async with self._writer() as saver:
            await saver.aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete the thread's checkpoints."""
        async with self._saver() as saver:
            await saver.adelete_thread(thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all checkpoints of these threads but the latest of each namespace, each thread in one transaction.

        Raises `NotImplementedError` for a thread with a `DeltaChannel`, whose latest checkpoint needs earlier ones.
        """
        async with self._saver() as saver:
            await saver.aprune(thread_ids, strategy=strategy)

    async def earlier_bytes(self) -> Mapping[str, int]:
        """Return the bytes that pruning would delete, by thread."""
        async with self._engine.connect() as session:
            return {row.thread_id: row.bytes for row in await session.execute(text(_EARLIER_BYTES))}

    async def bytes_of(self, thread_id: str) -> int:
        """Return the bytes of the thread's checkpoints."""
        async with self._engine.connect() as session:
            return int(await session.scalar(text(_BYTES), {"thread": thread_id}) or 0)

    @asynccontextmanager
    async def _saver(self) -> AsyncIterator[AsyncPostgresSaver]:
        async with self._connected() as (_, driver):
            yield AsyncPostgresSaver(driver, serde=self.serde)

    @asynccontextmanager
    async def _writer(self) -> AsyncIterator[AsyncPostgresSaver]:
        async with self._connected() as (session, driver):
            saver = AsyncPostgresSaver(driver, serde=self.serde)
            if self._fence is None:
                yield saver
                return
            async with driver.transaction():
                await self._fence.hold(session)
                yield saver

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[Session, AsyncConnection[Any]]]:
        async with self._engine.connect() as session:
            driver = (await session.get_raw_connection()).driver_connection
            assert isinstance(driver, AsyncConnection)  # noqa: S101 - the engine's driver is psycopg
            try:
                yield session, driver
            except BaseException:
                # The connection may be in any state, so it does not return to the pool.
                await session.invalidate()
                raise
