"""A checkpoint saver for one execution: it waits for an unavailable database, and refuses stale writes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from app.database.availability import Availability
from app.database.fence import Fence


@runtime_checkable
class FencedSaver(Protocol):
    """A saver that checks a fence in the transaction of each write."""

    def fenced_by(self, fence: Fence) -> BaseCheckpointSaver[Any]:
        """Return the same saver with this fence."""
        ...


class GuardedSaver(BaseCheckpointSaver[Any]):
    """Wraps a saver: calls are repeated until the database can be used.

    With `fence`, writes are refused once another process has taken over: in Postgres in the transaction of the write,
    in SQLite, whose checkpoints are a file of their own, just before it.
    """

    def __init__(self, saver: BaseCheckpointSaver[Any], availability: Availability, fence: Fence | None = None) -> None:
        super().__init__(serde=saver.serde)
        self._check: Callable[[], Awaitable[None]] | None = None
        if fence and isinstance(saver, FencedSaver):
            saver = saver.fenced_by(fence)
        elif fence:
            self._check = fence.check
        self._saver = saver
        self._retry = availability.retry

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
            if self._check:
                await self._check()
            return await self._saver.aput(config, checkpoint, metadata, new_versions)

        return await self._retry(put)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save the writes."""

        async def put() -> None:
            if self._check:
                await self._check()
            await self._saver.aput_writes(config, writes, task_id, task_path)

        await self._retry(put)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return the saver's next version."""
        return self._saver.get_next_version(current, channel)
