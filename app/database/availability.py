"""Watch whether the database can be used, and let work that must not be lost wait for it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from telemetry.span import one_line

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The delay between two pings of an unavailable database.
PAUSE_S = 0.5


class Availability:
    """Watches a database.

    Args:
        ping: raises unless the database can be used now.
        is_outage: whether an error means that the database cannot be used, rather than that a statement is wrong.
        on_lost: called when a ping has failed.
        interval_s: how often to ping; with None only after something failed.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[None]],
        is_outage: Callable[[BaseException], bool],
        *,
        on_lost: Callable[[], None] = lambda: None,
        interval_s: float | None = None,
    ) -> None:
        self.is_outage = is_outage
        self._ping = ping
        self._on_lost = on_lost
        self._interval_s = interval_s
        self._usable = asyncio.Event()
        self._usable.set()
        self._doubted = asyncio.Event()
        self._changed_at = time.monotonic()

    @property
    def is_usable(self) -> bool:
        """Whether the latest ping of the database succeeded."""
        return self._usable.is_set()

    @property
    def usable_for_s(self) -> float:
        """For how many seconds the database has been usable without interruption."""
        return time.monotonic() - self._changed_at if self.is_usable else 0.0

    async def retry(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Repeat an operation until the database can be used, and return its result; raise all other errors.

        An operation with an unknown outcome is repeated, so it must be idempotent.
        """
        while True:
            try:
                return await operation()
            except Exception as error:
                if not self.is_outage(error):
                    raise
            self.doubt()
            await asyncio.sleep(PAUSE_S)
            await self._usable.wait()

    def doubt(self) -> None:
        """Ping the database now, because something has failed."""
        self._doubted.set()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Watch the database during the block."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            self._doubted.clear()
            try:
                await self._ping()
            except Exception as error:  # noqa: BLE001 - whatever the error, the database did not answer
                self._lose(error)
            else:
                self._restore()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s if self.is_usable else PAUSE_S):
                    await self._doubted.wait()

    def _lose(self, error: Exception) -> None:
        if self.is_usable:
            logger.warning("the database cannot be used: %s", one_line(getattr(error, "orig", None) or error))
            self._usable.clear()
            self._changed_at = time.monotonic()
        self._on_lost()

    def _restore(self) -> None:
        if not self.is_usable:
            logger.warning("the database can be used again, after %.0f s", time.monotonic() - self._changed_at)
            self._usable.set()
            self._changed_at = time.monotonic()
