"""Whose threads there are, and which runs they had: what the checkpoints do not say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
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
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

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

# Asked to stop, where another process is at work; nobody else is told so.
STOPPING = "cancelling"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Thread:
    """A conversation and who it belongs to."""

    thread_id: str
    user_id: str
    agent: str
    created: datetime = field(default_factory=_now)


@dataclass(frozen=True)
class Run:
    """One execution of an agent; `position` is how many messages the thread had when it began."""

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
        """Where it is recorded."""
        return TraceRef(self.trace_id, self.span_id, self.sampled) if self.trace_id and self.span_id else None


def insert_into(engine: AsyncEngine) -> Callable[[Table], Any]:
    """Return the INSERT of the engine's dialect, which can say what becomes of a row that is there already."""
    return postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert


class Records:
    """The threads and runs in the service's database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._insert = insert_into(engine)

    async def claim(self, thread: Thread) -> Thread:
        """Return the thread as it is kept, making it this user's where nobody had it."""
        async with self._engine.begin() as connection:
            await connection.execute(self._insert(threads).values(asdict(thread)).on_conflict_do_nothing())
        found = await self.thread(thread.thread_id)
        assert found  # noqa: S101 - it has just been written
        return found

    async def thread(self, thread_id: str) -> Thread | None:
        """Return the thread, None where there is none."""
        async with self._engine.connect() as connection:
            row = (
                (await connection.execute(select(threads).where(threads.c.thread_id == thread_id)))
                .mappings()
                .one_or_none()
            )
        return Thread(**row) if row else None

    async def begin(self, run: Run) -> None:
        """Keep a run that begins; one that still runs on its thread died with its process."""
        lost = update(runs).where(runs.c.thread_id == run.thread_id, runs.c.status.in_(("running", STOPPING)))
        async with self._engine.begin() as connection:
            await connection.execute(lost.values(status="failed", ended=_now()))
            await connection.execute(self._insert(runs).values(asdict(run)))

    async def end(self, run_id: str, status: str) -> None:
        """Keep how a run ended."""
        change = update(runs).where(runs.c.run_id == run_id).values(status=status, ended=_now())
        async with self._engine.begin() as connection:
            await connection.execute(change)

    async def run(self, run_id: str) -> Run | None:
        """Return the run, None where there is none."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(runs).where(runs.c.run_id == run_id))).mappings().one_or_none()
        return _read(row) if row else None

    async def stop(self, run_id: str) -> bool:
        """Ask the process where the run is under way to stop it; return whether it had not ended."""
        change = update(runs).where(runs.c.run_id == run_id, runs.c.status.in_(("running", STOPPING)))
        async with self._engine.begin() as connection:
            return bool((await connection.execute(change.values(status=STOPPING))).rowcount)

    async def stopping(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Return those of the runs that were asked to stop."""
        query = select(runs.c.run_id).where(runs.c.run_id.in_(run_ids), runs.c.status == STOPPING)
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).scalars().all()

    async def of_thread(self, thread_id: str) -> Sequence[Run]:
        """Return the thread's runs, oldest first."""
        query = select(runs).where(runs.c.thread_id == thread_id).order_by(runs.c.created)
        async with self._engine.connect() as connection:
            return [_read(row) for row in (await connection.execute(query)).mappings()]

    async def latest(self, thread_id: str) -> Run | None:
        """Return the thread's latest run, None before the first one."""
        query = select(runs).where(runs.c.thread_id == thread_id).order_by(runs.c.created.desc()).limit(1)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return _read(row) if row else None


def _read(row: Mapping[Any, Any]) -> Run:
    run = Run(**row)
    return replace(run, status="running") if run.status == STOPPING else run


async def make_tables(engine: AsyncEngine) -> None:
    """Make the tables that are not there."""
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
