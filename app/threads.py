"""A user's conversations: which there are, and an end to one with all that belongs to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from textwrap import shorten

from langgraph.checkpoint.base import BaseCheckpointSaver
from sqlalchemy import and_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database.outcomes import forget
from app.database.records import Thread, runs, threads
from app.files import Files

MAX_TITLE = 60
UNTITLED = "New conversation"


@dataclass(frozen=True)
class Listed:
    """A conversation as a list shows it."""

    thread_id: str
    title: str
    agent: str
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class Threads:
    """The conversations of all users."""

    engine: AsyncEngine
    files: Files
    checkpoints: BaseCheckpointSaver

    async def of_user(self, user_id: str, most: int, before: datetime | None) -> Sequence[Listed]:
        """Return the user's threads, the latest first; with `before`, those last used before that."""
        turns = select(
            runs.c.thread_id, func.min(runs.c.created).label("first"), func.max(runs.c.created).label("last")
        )
        spans = turns.where(runs.c.user_id == user_id).group_by(runs.c.thread_id).subquery()
        opening = runs.alias()
        updated = func.coalesce(spans.c.last, threads.c.created)
        query = (
            select(
                threads.c.thread_id,
                # A file that came first has made the thread the default agent's.
                func.coalesce(opening.c.agent, threads.c.agent).label("agent"),
                threads.c.created,
                opening.c.message,
                updated.label("updated"),
            )
            .outerjoin(spans, spans.c.thread_id == threads.c.thread_id)
            .outerjoin(opening, and_(opening.c.thread_id == threads.c.thread_id, opening.c.created == spans.c.first))
            .where(threads.c.user_id == user_id, updated < before if before else threads.c.user_id == user_id)
            .order_by(updated.desc())
            .limit(most)
        )
        async with self.engine.connect() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [
            Listed(row["thread_id"], title(row["message"]), row["agent"], row["created"], row["updated"])
            for row in rows
        ]

    async def remove(self, thread: Thread) -> None:
        """Let nothing be left of the thread; it stands in the list until all else is gone."""
        for file in await self.files.of_thread(thread.thread_id, thread.user_id):
            await self.files.remove(file)
        await self.checkpoints.adelete_thread(thread.thread_id)
        async with self.engine.begin() as connection:
            await forget(connection, thread.thread_id)
            await connection.execute(delete(runs).where(runs.c.thread_id == thread.thread_id))
            await connection.execute(delete(threads).where(threads.c.thread_id == thread.thread_id))


def title(message: str | None) -> str:
    """Return the title of a conversation that began with this message."""
    return shorten(message or "", MAX_TITLE, placeholder=" …") or (message or UNTITLED)[:MAX_TITLE]
