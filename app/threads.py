"""List a user's threads, and delete a thread with everything that belongs to it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from anyio.to_thread import run_sync
from langgraph.checkpoint.base import BaseCheckpointSaver
from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database.branches import Branches, delete_branches
from app.database.outcomes import delete_outcomes, run_words
from app.database.thread_store import (
    Thread,
    insert_into,
    public_status,
    run_progress,
    runs,
    thread_titles,
    threads,
)
from app.database.turn_events import delete_events
from app.files import Files
from app.python_repl import folders, forget
from app.runs.lifespan import forget_in_engine
from app.runs.store import BackgroundRunStore
from app.settings import ServiceSettings

MAX_TITLE = 60
UNTITLED = "New conversation"


@dataclass(frozen=True)
class ThreadSummary:
    """A conversation as it is listed."""

    thread_id: str
    title: str
    agent: str
    status: str | None
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class Threads:
    """The conversations of all users."""

    engine: AsyncEngine
    files: Files
    checkpoints: BaseCheckpointSaver
    settings: ServiceSettings

    async def of_user(
        self, user_id: str, limit: int, before: datetime | None, words: str | None = None
    ) -> Sequence[ThreadSummary]:
        """Return the user's threads, latest first.

        With `before`, those last used before that time; with `words`, those in which this text was said.
        """
        turns = select(
            runs.c.thread_id, func.min(runs.c.created).label("first"), func.max(runs.c.created).label("last")
        )
        spans = turns.where(runs.c.user_id == user_id).group_by(runs.c.thread_id).subquery()
        first_run, last_run = runs.alias(), runs.alias()
        updated = func.coalesce(spans.c.last, threads.c.created)
        query = (
            select(
                threads.c.thread_id,
                # A thread that began with a file was created for the default agent.
                func.coalesce(first_run.c.agent, threads.c.agent).label("agent"),
                threads.c.created,
                func.coalesce(thread_titles.c.title, first_run.c.message).label("title"),
                last_run.c.status,
                updated.label("updated"),
            )
            .outerjoin(spans, spans.c.thread_id == threads.c.thread_id)
            .outerjoin(
                first_run, and_(first_run.c.thread_id == threads.c.thread_id, first_run.c.created == spans.c.first)
            )
            .outerjoin(last_run, and_(last_run.c.thread_id == threads.c.thread_id, last_run.c.created == spans.c.last))
            .outerjoin(thread_titles, thread_titles.c.thread_id == threads.c.thread_id)
            .where(threads.c.user_id == user_id, *([updated < before] if before else []))
            .where(*([_contain(words)] if words else []))
            .order_by(updated.desc())
            .limit(limit)
        )
        async with self.engine.connect() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [
            ThreadSummary(
                thread_id=row["thread_id"],
                title=title(row["title"]),
                agent=row["agent"],
                status=public_status(row["status"]),
                created=row["created"],
                updated=row["updated"],
            )
            for row in rows
        ]

    async def rename(self, thread_id: str, name: str) -> None:
        """Store the title that the user has given to the thread."""
        row = {"thread_id": thread_id, "title": name}
        statement = insert_into(self.engine)(thread_titles).values(row)
        async with self.engine.begin() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["thread_id"], set_=row))

    async def delete(self, thread: Thread) -> None:
        """Delete the thread with its files, runs and messages; its list entry is deleted last.

        Raises `OSError` if some of the files that its code has written remain; then its entry remains as well.
        """
        background_runs = BackgroundRunStore(self.engine)
        await forget_in_engine(self.settings, await background_runs.ids_of(thread.thread_id))
        await background_runs.delete_thread(thread.thread_id)
        await forget(self.settings.data_dir, thread.thread_id)
        for file in await self.files.of_thread(thread.thread_id, thread.user_id):
            await self.files.delete(file)
        for checkpoints in await Branches(self.engine).checkpoint_threads(thread.thread_id):
            await self.checkpoints.adelete_thread(checkpoints)
        async with self.engine.begin() as connection:
            await delete_outcomes(connection, thread.thread_id)
            await delete_events(connection, thread.thread_id)
            await delete_branches(connection, thread.thread_id)
            await connection.execute(delete(thread_titles).where(thread_titles.c.thread_id == thread.thread_id))
            await connection.execute(delete(run_progress).where(run_progress.c.thread_id == thread.thread_id))
            await connection.execute(delete(runs).where(runs.c.thread_id == thread.thread_id))
            await connection.execute(delete(threads).where(threads.c.thread_id == thread.thread_id))

    async def remove_leftovers(self) -> None:
        """Remove what the code of threads has written on this machine, if another process has deleted the thread."""
        found = await run_sync(folders, self.settings.data_dir)
        async with self.engine.connect() as connection:
            query = select(threads.c.thread_id)
            existing = set((await connection.execute(query)).scalars()) if found else set()
        for thread_id in found - existing:
            with suppress(OSError):
                await forget(self.settings.data_dir, thread_id)


def _contain(words: str) -> ColumnElement[bool]:
    """Return the condition that the thread's title, or one of its questions or answers, contains this text."""
    asked = runs.c.message.icontains(words, autoescape=True)
    said = run_words.c.words.contains(words.casefold(), autoescape=True)
    return or_(
        thread_titles.c.title.icontains(words, autoescape=True),
        threads.c.thread_id.in_(select(runs.c.thread_id).where(asked)),
        threads.c.thread_id.in_(select(run_words.c.thread_id).where(said)),
    )


def title(message: str | None) -> str:
    """Return the title of a conversation that starts with this message."""
    words = " ".join((message or "").split())
    if len(words) <= MAX_TITLE:
        return words or UNTITLED
    cut = words[: MAX_TITLE - 2]
    whole = cut.rpartition(" ")[0]
    # A long word is cut, as is a script that has no spaces.
    return f"{whole if len(whole) > MAX_TITLE // 2 else cut} …"
