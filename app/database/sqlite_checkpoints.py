"""LangGraph's checkpoints in SQLite, where its own saver cannot prune them."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

# The latest checkpoint of each namespace: the graph itself is '', a call of a subgraph name:task.
_HEADS = """
SELECT checkpoint_ns, checkpoint_id, metadata FROM checkpoints AS head
WHERE thread_id = :thread AND checkpoint_id = (
    SELECT max(checkpoint_id) FROM checkpoints
    WHERE thread_id = :thread AND checkpoint_ns = head.checkpoint_ns
)
"""
_EARLIER = (
    "SELECT checkpoint_id FROM checkpoints WHERE thread_id = :thread AND checkpoint_ns = '' AND checkpoint_id < :head"
)
_DELETE_CALL = (
    "DELETE FROM writes WHERE thread_id = :thread AND checkpoint_ns = :ns",
    "DELETE FROM checkpoints WHERE thread_id = :thread AND checkpoint_ns = :ns",
)
# Writes may be stored before their checkpoint is, so they are deleted with it, not by its age.
_DELETE_EARLIER = (
    """
    DELETE FROM writes WHERE thread_id = :thread AND checkpoint_ns = :ns AND checkpoint_id IN (
        SELECT checkpoint_id FROM checkpoints
        WHERE thread_id = :thread AND checkpoint_ns = :ns AND checkpoint_id < :head
    )
    """,
    "DELETE FROM checkpoints WHERE thread_id = :thread AND checkpoint_ns = :ns AND checkpoint_id < :head",
    """
    UPDATE checkpoints SET parent_checkpoint_id = NULL
    WHERE thread_id = :thread AND checkpoint_ns = :ns AND checkpoint_id = :head
    """,
)
_EARLIER_BYTES = """
SELECT thread_id, sum(bytes) FROM (
    SELECT thread_id, checkpoint_ns, checkpoint_id, length(checkpoint) + length(metadata) AS bytes FROM checkpoints
    UNION ALL
    SELECT thread_id, checkpoint_ns, checkpoint_id, length(value) FROM writes
) AS stored
WHERE checkpoint_id < (
    SELECT max(checkpoint_id) FROM checkpoints
    WHERE thread_id = stored.thread_id AND checkpoint_ns = stored.checkpoint_ns
)
GROUP BY thread_id
"""
_BYTES = """
SELECT (SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints WHERE thread_id = :thread)
    + (SELECT coalesce(sum(length(value)), 0) FROM writes WHERE thread_id = :thread)
"""
# Metadata of a thread whose latest checkpoint is only the difference to earlier ones.
_DELTA = "counters_since_delta_snapshot"


class SqliteCheckpoints(AsyncSqliteSaver):
    """LangGraph's own saver, with the pruning that its saver for Postgres has."""

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all checkpoints of these threads but the latest of each namespace, each thread in one transaction.

        Calls of subgraphs are deleted with the checkpoint that they started from. Raises `NotImplementedError` for a
        thread with a `DeltaChannel`, whose latest checkpoint needs earlier ones.
        """
        if strategy != "keep_latest":
            raise ValueError(f"Unknown prune strategy: {strategy!r}")
        for thread_id in thread_ids:
            async with self._transaction() as connection:
                await _keep_latest(connection, thread_id)

    async def earlier_bytes(self) -> Mapping[str, int]:
        """Return the bytes that pruning would delete, by thread."""
        async with self.lock, self.conn.execute(_EARLIER_BYTES) as found:
            return {thread_id: size async for thread_id, size in found}

    async def bytes_of(self, thread_id: str) -> int:
        """Return the bytes of the thread's checkpoints."""
        async with self.lock, self.conn.execute(_BYTES, {"thread": thread_id}) as found:
            row = await found.fetchone()
        return row[0] if row else 0

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        # SQLite's driver begins it with the first change.
        async with self.lock:
            try:
                yield self.conn
            except BaseException:
                await self.conn.rollback()
                raise
            await self.conn.commit()


async def _keep_latest(connection: aiosqlite.Connection, thread_id: str) -> None:
    async with connection.execute(_HEADS, {"thread": thread_id}) as found:
        heads: dict[str, tuple[str, dict[str, Any]]] = {
            namespace: (head, json.loads(metadata or "{}")) async for namespace, head, metadata in found
        }
    if any(_DELTA in metadata for _, metadata in heads.values()):
        raise NotImplementedError(f"thread {thread_id} uses a DeltaChannel")
    async with connection.execute(_EARLIER, {"thread": thread_id, "head": heads.get("", ("",))[0]}) as found:
        earlier = {checkpoint_id async for (checkpoint_id,) in found}
    for namespace, (head, metadata) in heads.items():
        is_over = ":" in namespace and metadata.get("parents", {}).get("") in earlier
        for statement in _DELETE_CALL if is_over else _DELETE_EARLIER:
            await connection.execute(statement, {"thread": thread_id, "ns": namespace, "head": head})
