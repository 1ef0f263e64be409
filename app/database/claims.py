"""Which threads are being answered, among all processes that share a database."""

from typing import Protocol


class Claims(Protocol):
    """Who takes a thread has it alone until it is freed, or its process dies."""

    async def take(self, thread_id: str) -> bool:
        """Return whether the thread could be taken."""
        ...

    async def free(self, thread_id: str) -> None:
        """Let others take the thread."""
        ...


class Alone:
    """The claims of a process that has its database for itself."""

    async def take(self, thread_id: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return that it could."""
        return True

    async def free(self, thread_id: str) -> None:
        """Do nothing."""
