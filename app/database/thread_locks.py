"""Locks on threads, shared by all processes of one database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol


class ThreadLocks(Protocol):
    """One lock for each thread; a process that dies releases all of its locks."""

    async def acquire(self, thread_id: str) -> bool:
        """Return whether the thread could be locked, without waiting for it."""
        ...

    async def release(self, thread_id: str) -> None:
        """Unlock the thread."""
        ...


class NoThreadLocks:
    """The locks of a process that is the only one on its database, and needs none."""

    async def acquire(self, thread_id: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return True."""
        return True

    async def release(self, thread_id: str) -> None:
        """Do nothing."""


@asynccontextmanager
async def locked(locks: ThreadLocks, thread_id: str) -> AsyncIterator[bool]:
    """Yield whether the thread could be locked, for the length of the block."""
    if not await locks.acquire(thread_id):
        yield False
        return
    try:
        yield True
    finally:
        await locks.release(thread_id)
