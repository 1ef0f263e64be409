"""Delete the checkpoints of ended turns, which nothing resumes from, and return their space."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.database.database import Database
from telemetry.span import one_line

logger = logging.getLogger(__name__)

# How long after the last turn unused space is returned, which delays writes; until then the next turns use it.
QUIET_S = 5.0
# How long a service that stops waits for what is being pruned.
PATIENCE_S = 1.0


@dataclass
class CheckpointPruning:
    """Prunes a thread after each of its turns: each checkpoint holds the whole thread, and only the latest is needed.

    Pruning is safe during a later turn of the thread.
    """

    database: Database
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Return what a killed process, or an earlier release, has left unused; stop at the end of the block."""
        await self.database.compact()
        try:
            yield
        finally:
            if self._timer:
                self._timer.cancel()
            if self._tasks:
                _, pending = await asyncio.wait(self._tasks, timeout=PATIENCE_S)
                for task in pending:
                    task.cancel()

    def prune_later(self, thread_id: str) -> None:
        """Prune the thread, without delaying what follows its turn."""
        self._start(self.prune(thread_id))
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, lambda: self._start(self.database.compact()))

    async def prune(self, thread_id: str) -> None:
        """Prune the thread; if that fails, its next turn does it."""
        try:
            await self.database.checkpoints.aprune([thread_id])
        except NotImplementedError:
            pass  # its latest checkpoint is only the difference to earlier ones
        except Exception as error:  # noqa: BLE001 - whatever the error, the thread can be used as it is
            if not self.database.availability.is_outage(error):
                logger.warning("thread %s could not be pruned: %s", thread_id, one_line(error))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
