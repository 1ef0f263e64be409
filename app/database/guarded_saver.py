"""A checkpoint saver for one execution: it waits for an unavailable database, and refuses stale writes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from app.database.availability import Availability


class GuardedSaver(BaseCheckpointSaver[Any]):
    """Wraps a saver: calls are repeated until the database can be used.

    `check` raises before each write once another process has taken over.
    """

    def __init__(
        self, saver: BaseCheckpointSaver[Any], availability: Availability, check: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._retry = availability.retry
        self._check = check

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the saver's checkpoint."""
        return await self._retry(lambda: self._saver.aget_tuple(config))

    async def alist(self, config: RunnableConfig | None, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        """Yield the saver's checkpoints."""
        async for checkpoint in self._saver.alist(config, **kwargs):
            yield checkpoint

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save the checkpoint."""

        async def put() -> RunnableConfig:
            await self._check()
            return await self._saver.aput(config, checkpoint, metadata, new_versions)

        return await self._retry(put)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save the writes."""

        async def put() -> None:
            await self._check()
            await self._saver.aput_writes(config, writes, task_id, task_path)

        await self._retry(put)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return the saver's next version."""
        return self._saver.get_next_version(current, channel)
