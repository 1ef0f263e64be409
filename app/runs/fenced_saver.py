"""Checkpoints that only the run's present attempt may write."""

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


class FencedSaver(BaseCheckpointSaver[Any]):
    """The saver behind it, for an attempt: `check` raises before each write once the attempt is over."""

    def __init__(self, saver: BaseCheckpointSaver[Any], check: Callable[[], Awaitable[None]]) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._check = check

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return what the saver returns."""
        return await self._saver.aget_tuple(config)

    async def alist(self, config: RunnableConfig | None, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        """Yield what the saver yields."""
        async for each in self._saver.alist(config, **kwargs):
            yield each

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep the checkpoint, unless the attempt is over."""
        await self._check()
        return await self._saver.aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep the writes, unless the attempt is over."""
        await self._check()
        await self._saver.aput_writes(config, writes, task_id, task_path)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return what the saver returns."""
        return self._saver.get_next_version(current, channel)
