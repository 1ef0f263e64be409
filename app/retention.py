"""Remove threads that nobody has used for a long time, with everything that belongs to them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Select, exists, or_, select

from app.database.database import Database
from app.database.thread_locks import locked
from app.database.thread_store import UNFINISHED, Thread, runs, threads
from app.files.catalogue import files
from app.runs.store import FINAL
from app.runs.store import runs as background_runs
from app.threads import Threads
from telemetry.span import one_line

logger = logging.getLogger(__name__)

# How often to look for unused threads.
INTERVAL_S = 3600
BATCH = 100
# No thread has this id: ids of threads start with a letter or a digit.
_LOCK = "-retention"

LockThread = Callable[[str], AbstractAsyncContextManager[bool]]


@dataclass(frozen=True)
class Retention:
    """Removes the threads without a turn, a background run or an upload since a given time.

    A thread that waits for a person's answer is as unused as any other; one that is answering is used. `lock_thread`
    yields whether the thread could be locked for the block.
    """

    database: Database
    threads: Threads
    lock_thread: LockThread

    async def unused(self, since: datetime, but: Collection[str] = ()) -> Sequence[Thread]:
        """Return some of the threads that were not used since then, other than these."""
        query = _unused(since).where(threads.c.thread_id.not_in(but)).order_by(threads.c.thread_id).limit(BATCH)
        async with self.database.engine.connect() as connection:
            return [Thread(**row) for row in (await connection.execute(query)).mappings()]

    async def remove_unused(self, since: datetime) -> int | None:
        """Remove the threads that were not used since then; return how many, None while another process does so."""
        async with locked(self.database.thread_locks, _LOCK) as first:
            if not first:
                return None
            removed, kept = 0, set[str]()
            while found := await self.unused(since, kept):
                for thread in found:
                    if await self._remove(thread, since):
                        removed += 1
                    else:
                        kept.add(thread.thread_id)
            return removed

    @asynccontextmanager
    async def running(self, days: float | None) -> AsyncIterator[None]:
        """Remove what was not used for so many days, repeatedly during the block; with None, remove nothing."""
        task = None if days is None else asyncio.create_task(self._repeat(timedelta(days=days)))
        try:
            yield
        finally:
            if task:
                task.cancel()
                await asyncio.wait({task})

    async def _repeat(self, age: timedelta) -> None:
        while True:
            try:
                if removed := await self.remove_unused(datetime.now(UTC) - age):
                    logger.info("%d threads were removed: not used for %g days", removed, age / timedelta(days=1))
                    await self.database.compact()
                await self.threads.remove_leftovers()
            except Exception as error:  # noqa: BLE001 - whatever the error, the next attempt may succeed
                logger.warning("unused threads are removed later: %s", one_line(error))
            await asyncio.sleep(INTERVAL_S)

    async def _remove(self, thread: Thread, since: datetime) -> bool:
        async with self.lock_thread(thread.thread_id) as free:
            if not free or not await self._is_unused(thread, since):
                return False
            try:
                await self.threads.delete(thread)
            except Exception as error:
                if self.database.availability.is_outage(error):
                    raise
                logger.warning("thread %s cannot be removed: %s", thread.thread_id, one_line(error))
                return False
            return True

    async def _is_unused(self, thread: Thread, since: datetime) -> bool:
        async with self.database.engine.connect() as connection:
            query = _unused(since).where(threads.c.thread_id == thread.thread_id)
            return (await connection.execute(query)).first() is not None


def _unused(since: datetime) -> Select:
    turn = exists().where(
        runs.c.thread_id == threads.c.thread_id,
        or_(runs.c.created >= since, runs.c.ended >= since, runs.c.status.in_(UNFINISHED)),
    )
    moment = since.timestamp()
    run = exists().where(
        background_runs.c.thread_id == threads.c.thread_id,
        or_(
            background_runs.c.created >= moment,
            background_runs.c.ended >= moment,
            background_runs.c.status.not_in(FINAL),
        ),
    )
    upload = exists().where(files.c.thread_id == threads.c.thread_id, files.c.created >= since)
    return select(threads).where(threads.c.created < since, ~turn, ~run, ~upload)
