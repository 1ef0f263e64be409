"""Threads with their owners and runs, which the checkpoints do not contain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Update,
    delete,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database.fence import Fence
from telemetry import TraceRef

tables = MetaData()
threads = Table(
    "threads",
    tables,
    Column("thread_id", String, primary_key=True),
    Column("user_id", String, nullable=False, index=True),
    Column("agent", String, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
)
# Of threads that their users have named.
thread_titles = Table(
    "thread_titles",
    tables,
    Column("thread_id", String, primary_key=True),
    Column("title", Text, nullable=False),
)
runs = Table(
    "runs",
    tables,
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("user_id", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("trace_id", String),
    Column("span_id", String),
    Column("sampled", Boolean, nullable=False),
    Column("position", Integer, nullable=False),
    Column("resumed", Boolean, nullable=False),
    Column("message", Text, nullable=False),
    Column("status", String, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("ended", DateTime(timezone=True)),
)

# Of turns that have not ended, or whose span may not be on disk: what is needed to end both if their process dies.
run_progress = Table(
    "run_progress",
    tables,
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("caller_id", String),
    Column("answer", Text, nullable=False),
    Column("updated", DateTime(timezone=True), nullable=False),
)

# The status of a run that another process was asked to cancel; callers see it as running.
CANCELLING = "cancelling"
UNFINISHED = ("running", CANCELLING)


class StaleRunError(Exception):
    """Another process has ended the run, whose thread may have gone on, or the thread is gone."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Thread:
    """A conversation and its owner."""

    thread_id: str
    user_id: str
    agent: str
    created: datetime = field(default_factory=_now)


@dataclass(frozen=True)
class RunRecord:
    """One execution of an agent; `position` is the number of messages in the thread at its start."""

    run_id: str
    thread_id: str
    user_id: str
    agent: str
    position: int
    message: str
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    resumed: bool = False
    status: str = "running"
    created: datetime = field(default_factory=_now)
    ended: datetime | None = None

    @property
    def trace(self) -> TraceRef | None:
        """The trace that it is recorded in."""
        return TraceRef(self.trace_id, self.span_id, self.sampled) if self.trace_id and self.span_id else None


@dataclass(frozen=True)
class RunProgress:
    """What a turn has said so far; `caller_id` is the span of another process that its trace continues."""

    run_id: str
    thread_id: str
    caller_id: str | None = None
    answer: str = ""
    updated: datetime = field(default_factory=_now)


def answer_so_far(run_id: str, answer: str) -> Update:
    """Return the statement that stores what a turn has said so far."""
    return update(run_progress).where(run_progress.c.run_id == run_id).values(answer=answer, updated=_now())


def insert_into(engine: AsyncEngine) -> Callable[[Table], Any]:
    """Return the INSERT of the engine's dialect, which supports ON CONFLICT."""
    return postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert


class ThreadStore:
    """The threads and runs in the service's database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._insert = insert_into(engine)

    async def get_or_create(self, thread: Thread) -> Thread:
        """Return the stored thread with this id, whoever owns it; store this one if there is none."""
        async with self._engine.begin() as connection:
            await connection.execute(self._insert(threads).values(asdict(thread)).on_conflict_do_nothing())
        stored = await self.get_thread(thread.thread_id)
        assert stored  # noqa: S101 - it has just been written
        return stored

    async def get_thread(self, thread_id: str) -> Thread | None:
        """Return the thread, None if there is none."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(threads).where(threads.c.thread_id == thread_id))
            row = rows.mappings().one_or_none()
        return Thread(**row) if row else None

    async def begin_run(self, run: RunRecord, progress: RunProgress | None = None) -> None:
        """Store a run that starts; an unfinished run on its thread died with its process."""
        others = runs.c.thread_id == run.thread_id, runs.c.run_id != run.run_id
        lost = update(runs).where(*others, runs.c.status.in_(UNFINISHED))
        async with self._engine.begin() as connection:
            await connection.execute(lost.values(status="failed", ended=_now()))
            await connection.execute(self._insert(runs).values(asdict(run)).on_conflict_do_nothing())
            if progress:
                await connection.execute(self._insert(run_progress).values(asdict(progress)).on_conflict_do_nothing())

    async def save_answer(self, run_id: str, answer: str) -> None:
        """Store what a turn has said so far."""
        async with self._engine.begin() as connection:
            await connection.execute(answer_so_far(run_id, answer))

    async def progress_of(self, run_id: str) -> RunProgress | None:
        """Return what a turn has said so far; None if that is not stored."""
        query = select(run_progress).where(run_progress.c.run_id == run_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return RunProgress(**row) if row else None

    async def forget_progress(self, run_id: str) -> None:
        """Forget what a turn has said: its end is stored, and its span is on disk."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(run_progress).where(run_progress.c.run_id == run_id))

    async def discard_run(self, run_id: str) -> None:
        """Delete a run that was refused, but may have been stored."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(run_progress).where(run_progress.c.run_id == run_id))
            await connection.execute(delete(runs).where(runs.c.run_id == run_id))

    def fence(self, run_id: str) -> Fence:
        """Return the fence of a turn: it may write as long as nobody has ended it."""
        query = select(runs.c.run_id).where(runs.c.run_id == run_id, runs.c.status.in_(UNFINISHED))
        return Fence(self._engine, query, partial(StaleRunError, f"another process has ended run {run_id}"))

    async def unfinished(self, thread_id: str | None = None) -> Sequence[RunRecord]:
        """Return all runs that have not ended, or those of a thread."""
        query = select(runs).where(runs.c.status.in_(UNFINISHED))
        async with self._engine.connect() as connection:
            found = await connection.execute(query.where(runs.c.thread_id == thread_id) if thread_id else query)
            return [_run_from(row) for row in found.mappings()]

    async def with_progress(self) -> Sequence[RunRecord]:
        """Return the runs that have ended, but whose span may be lost if their process died."""
        query = select(runs).join(run_progress, run_progress.c.run_id == runs.c.run_id)
        async with self._engine.connect() as connection:
            found = await connection.execute(query.where(runs.c.status.not_in(UNFINISHED)))
            return [_run_from(row) for row in found.mappings()]

    async def end_run(self, run_id: str, status: str, answer: str | None = None) -> None:
        """Store the outcome of a run, and for its span the whole answer of a turn."""
        change = update(runs).where(runs.c.run_id == run_id).values(status=status, ended=_now())
        async with self._engine.begin() as connection:
            await connection.execute(change)
            if answer is not None:
                await connection.execute(answer_so_far(run_id, answer))

    async def get_run(self, run_id: str) -> RunRecord | None:
        """Return the run, None if there is none."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(runs).where(runs.c.run_id == run_id))).mappings().one_or_none()
        return _run_from(row) if row else None

    async def request_cancel(self, run_id: str) -> bool:
        """Ask the process that executes the run to cancel it; return whether the run had not ended."""
        change = update(runs).where(runs.c.run_id == run_id, runs.c.status.in_(UNFINISHED))
        async with self._engine.begin() as connection:
            return bool((await connection.execute(change.values(status=CANCELLING))).rowcount)

    async def to_be_stopped(self, run_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the runs whose cancellation was requested, or that somebody has ended, with their statuses."""
        query = select(runs.c.run_id, runs.c.status).where(runs.c.run_id.in_(run_ids), runs.c.status != "running")
        async with self._engine.connect() as connection:
            return {row.run_id: row.status for row in await connection.execute(query)}

    async def runs_of(self, thread_id: str) -> Sequence[RunRecord]:
        """Return the thread's runs, oldest first."""
        query = select(runs).where(runs.c.thread_id == thread_id).order_by(runs.c.created)
        async with self._engine.connect() as connection:
            return [_run_from(row) for row in (await connection.execute(query)).mappings()]

    async def latest_run(self, thread_id: str) -> RunRecord | None:
        """Return the thread's latest run, None before the first one."""
        query = select(runs).where(runs.c.thread_id == thread_id).order_by(runs.c.created.desc()).limit(1)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return _run_from(row) if row else None


def _run_from(row: Mapping[Any, Any]) -> RunRecord:
    run = RunRecord(**row)
    return replace(run, status=public_status(run.status))


def public_status(status: str) -> str:
    """Return the status of a run as callers see it."""
    return "running" if status == CANCELLING else status


async def create_tables(engine: AsyncEngine) -> None:
    """Create the tables that do not exist."""
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
