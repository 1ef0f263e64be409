"""Background runs in the database.

The number of a run's attempt is its fencing token: a write for an attempt that is not the latest one changes nothing
and raises `StaleAttemptError`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, repeat
from typing import Any, Protocol, TypeVar

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database.fence import Fence
from app.database.thread_store import CANCELLING, insert_into
from telemetry import TraceRef
from telemetry.span import one_line

T = TypeVar("T")


class Retry(Protocol):
    """Repeats an operation until the database can be used."""

    async def __call__(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what the operation returns."""
        ...


metadata = MetaData()
runs = Table(
    "background_runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("user_id", String, nullable=False, index=True),
    Column("agent", String, nullable=False),
    Column("asked", Text, nullable=False),
    Column("status", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("trace_id", String),
    Column("span_id", String),
    Column("sampled", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    Column("ended", Float),
    Column("error", Text),
)
attempts = Table(
    "background_attempts",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("trace_id", String),
    Column("span_id", String),
    Column("sampled", Boolean, nullable=False),
    Column("began", Float, nullable=False),
    Column("beat", Float, nullable=False),
    Column("status", String, nullable=False),
)
events = Table(
    "background_events",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("body", Text, nullable=False),
)
answers = Table(
    "background_answers",
    metadata,
    Column("thread_id", String, primary_key=True),
    Column("call_id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("body", Text),
)
executors = Table(
    "background_executors",
    metadata,
    Column("executor", String, primary_key=True),
    Column("beat", Float, nullable=False),
)

FINAL = ("waiting", "completed", "failed", "cancelled")


class StaleAttemptError(Exception):
    """Another attempt has started, or the run has ended."""


class EngineUnusableError(Exception):
    """The engine cannot be started, for a reason that does not pass by itself."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"Background runs cannot be used ({one_line(getattr(error, 'orig', None) or error)}): "
            "restore the engine's store from a backup, or move it away, which ends the runs in it."
        )


@dataclass(frozen=True)
class BackgroundRun:
    """A run that outlives its request; its trace is that of the request."""

    run_id: str
    thread_id: str
    user_id: str
    agent: str
    asked: str
    created: float
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    status: str = "queued"
    attempt: int = 0
    owner: str = ""
    ended: float | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run has a final status."""
        return self.status in FINAL

    @property
    def trace(self) -> TraceRef | None:
        """The trace in which it was submitted."""
        return TraceRef(self.trace_id, self.span_id, self.sampled) if self.trace_id and self.span_id else None


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt of a run, in one process; `sampled` is whether its trace is recorded, and was kept at its end."""

    run_id: str
    attempt: int
    began: float
    beat: float
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    status: str = "running"

    @property
    def trace(self) -> TraceRef | None:
        """The trace that it is recorded in."""
        return TraceRef(self.trace_id, self.span_id, self.sampled) if self.trace_id and self.span_id else None


class BackgroundRunStore:
    """The background runs of all processes that share the database.

    With `retry`, each call waits until the database can be used; without it, a call fails at once.
    """

    def __init__(self, engine: AsyncEngine, retry: Retry | None = None) -> None:
        self.engine = engine
        self._insert = insert_into(engine)
        self._retry: Retry = retry or _call

    def retrying(self, retry: Retry) -> "BackgroundRunStore":
        """Return the same store, whose calls wait until the database can be used."""
        return BackgroundRunStore(self.engine, retry)

    async def add(self, run: BackgroundRun) -> None:
        """Store a run that is queued."""
        await self._write(insert(runs).values(asdict(run)))

    async def discard(self, run_id: str) -> None:
        """Delete a run that was refused, and may have been stored all the same."""
        await self._write(delete(runs).where(runs.c.run_id == run_id, runs.c.status == "queued"))

    async def get(self, run_id: str) -> BackgroundRun | None:
        """Return the run, None if there is none."""
        rows = await self._read(select(runs).where(runs.c.run_id == run_id))
        return BackgroundRun(**rows[0]) if rows else None

    async def of_user(self, user_id: str, limit: int) -> Sequence[BackgroundRun]:
        """Return the user's latest runs."""
        query = select(runs).where(runs.c.user_id == user_id).order_by(runs.c.created.desc()).limit(limit)
        return [BackgroundRun(**row) for row in await self._read(query)]

    async def unfinished(self, **where: str) -> Sequence[BackgroundRun]:
        """Return the runs without a final status whose columns have these values."""
        query = select(runs).where(runs.c.status.not_in(FINAL), *(runs.c[key] == value for key, value in where.items()))
        return [BackgroundRun(**row) for row in await self._read(query)]

    async def ids_of(self, thread_id: str) -> Sequence[str]:
        """Return the ids of the thread's runs."""
        return [row["run_id"] for row in await self._read(select(runs.c.run_id).where(runs.c.thread_id == thread_id))]

    async def delete_thread(self, thread_id: str) -> None:
        """Delete the thread's runs with their attempts, events and tool calls."""
        run_ids = select(runs.c.run_id).where(runs.c.thread_id == thread_id)
        for table in (events, attempts):
            await self._write(delete(table).where(table.c.run_id.in_(run_ids)))
        await self._write(delete(answers).where(answers.c.thread_id == thread_id))
        await self._write(delete(runs).where(runs.c.thread_id == thread_id))

    async def attempts_of(self, run_id: str) -> Sequence[AttemptRecord]:
        """Return the run's attempts, oldest first."""
        query = select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.attempt)
        return [AttemptRecord(**row) for row in await self._read(query)]

    async def begin_attempt(self, run_id: str, owner: str) -> BackgroundRun:
        """Start the run's next attempt and make earlier ones stale; raise `StaleAttemptError` if the run is over."""
        change = update(runs).where(runs.c.run_id == run_id, runs.c.status.not_in(FINAL))
        status = case((runs.c.status == CANCELLING, CANCELLING), else_="running")
        begun = change.values(attempt=runs.c.attempt + 1, owner=owner, status=status)
        for row in await self._write_returning(begun.returning(*runs.c)):
            return BackgroundRun(**row)
        raise StaleAttemptError(run_id)

    async def request_cancel(self, run_id: str) -> None:
        """Store that the run is to be cancelled, by its current attempt or its next one."""
        await self._write(
            update(runs).where(runs.c.run_id == run_id, runs.c.status.not_in(FINAL)).values(status=CANCELLING)
        )

    async def add_attempt(self, attempt: AttemptRecord) -> None:
        """Store an attempt that begins."""
        await self._write(self._insert(attempts).values(asdict(attempt)).on_conflict_do_nothing())

    async def revoke(self, run: BackgroundRun) -> BackgroundRun:
        """Make the run's attempt stale and return the run; raise `StaleAttemptError` if it already is."""
        revoked = replace(run, attempt=run.attempt + 1)
        if not await self._write(update(runs).where(*_is_current(run)).values(attempt=revoked.attempt)):
            raise StaleAttemptError(run.run_id)
        return revoked

    async def end_attempt(
        self, attempt: BackgroundRun | AttemptRecord, status: str, *, kept: bool | None = None
    ) -> None:
        """Store the outcome of an attempt, or of the current one, and whether its trace is kept, if known."""
        which = (attempts.c.run_id == attempt.run_id) & (attempts.c.attempt == attempt.attempt)
        values = {"status": status} if kept is None else {"status": status, "sampled": kept}
        await self._write(update(attempts).where(which).values(values))

    async def end(self, run: BackgroundRun, status: str, error: str | None = None) -> None:
        """Store the final status of the run."""
        values = {"status": status, "ended": time.time(), "error": error}
        same = runs.c.run_id == run.run_id, runs.c.attempt == run.attempt
        # A repeated write finds its own status.
        if not await self._write(
            update(runs).where(*same, or_(runs.c.status.not_in(FINAL), runs.c.status == status)).values(values)
        ):
            raise StaleAttemptError(run.run_id)

    async def check_current(self, run: BackgroundRun) -> None:
        """Raise `StaleAttemptError` unless this attempt is the run's latest one."""
        await self._retry(self.fence(run).check)

    def fence(self, run: BackgroundRun) -> Fence:
        """Return the fence of an attempt: it may write as long as it is the run's latest one."""
        query = select(runs.c.run_id).where(*_is_current(run))
        return Fence(self.engine, query, partial(StaleAttemptError, run.run_id))

    async def beat(self, run: BackgroundRun) -> None:
        """Store the attempt's heartbeat."""
        await self.check_current(run)
        which = (attempts.c.run_id == run.run_id) & (attempts.c.attempt == run.attempt)
        await self._write(update(attempts).where(which).values(beat=time.time()))

    async def append_event(self, run: BackgroundRun, body: str) -> None:
        """Store one more event of the run."""
        last = select(func.coalesce(func.max(events.c.number), 0)).where(events.c.run_id == run.run_id)
        number = last.scalar_subquery()
        row = select(literal(run.run_id), number + 1, literal(body)).where(exists().where(*_is_current(run)))
        is_stored = exists().where(events.c.run_id == run.run_id, events.c.number == number, events.c.body == body)
        first, again = (
            insert(events).from_select(["run_id", "number", "body"], rows).returning(events.c.number)
            for rows in (row, row.where(~is_stored))
        )
        if not await self._write_returning(first, again):
            await self.check_current(run)

    async def events_after(self, run_id: str, number: int) -> Sequence[tuple[int, str]]:
        """Return the run's events after this number, with their numbers."""
        query = select(events.c.number, events.c.body).where(events.c.run_id == run_id, events.c.number > number)
        return [(row["number"], row["body"]) for row in await self._read(query.order_by(events.c.number))]

    async def begin_tool_call(self, run: BackgroundRun, call_id: str) -> tuple[bool, str | None]:
        """Store that a tool call starts; return whether it had started before, and its result."""
        await self.check_current(run)
        # A run that an earlier release started has logged its calls without the ids of their messages.
        former = and_(answers.c.call_id == call_id.rpartition("/")[2], answers.c.run_id == run.run_id)
        same = or_(answers.c.call_id == call_id, former)
        rows = await self._read(select(answers.c.body).where(answers.c.thread_id == run.thread_id, same))
        row = {"thread_id": run.thread_id, "call_id": call_id, "run_id": run.run_id}
        await self._write(self._insert(answers).values(row).on_conflict_do_nothing())
        return bool(rows), next((row["body"] for row in rows if row["body"]), None)

    async def save_answer(self, run: BackgroundRun, call_id: str, body: str) -> None:
        """Store the result of a tool call."""
        which = (answers.c.thread_id == run.thread_id) & (answers.c.call_id == call_id)
        if not await self._write(update(answers).where(which, exists().where(*_is_current(run))).values(body=body)):
            raise StaleAttemptError(run.run_id)

    async def beat_executor(self, executor: str) -> None:
        """Store the heartbeat of this process."""
        row = {"executor": executor, "beat": time.time()}
        statement = self._insert(executors).values(row)
        await self._write(statement.on_conflict_do_update(index_elements=["executor"], set_={"beat": row["beat"]}))

    async def silent_executors(self, since: float, but: str = "") -> Mapping[str, float]:
        """Return the processes without a heartbeat since then, with the time of their last one."""
        query = select(executors).where(executors.c.beat < since, executors.c.executor != but)
        return {row["executor"]: row["beat"] for row in await self._read(query)}

    async def take_over(self, executor: str, beat: float) -> bool:
        """Take over from a process without heartbeats; return False if another process was faster."""
        which = (executors.c.executor == executor) & (executors.c.beat == beat)
        return await self._write(update(executors).where(which).values(beat=time.time())) > 0

    async def remove_executor(self, executor: str) -> None:
        """Remove a process without unfinished runs."""
        await self._write(delete(executors).where(executors.c.executor == executor))

    async def release_executor(self, executor: str) -> None:
        """Store that a process stops: others may take over its unfinished runs at once."""
        await self._write(update(executors).where(executors.c.executor == executor).values(beat=0.0))

    async def _read(self, query: Any) -> Sequence[Mapping[str, Any]]:
        async def read() -> Sequence[Mapping[str, Any]]:
            async with self.engine.connect() as connection:
                return [dict(row) for row in (await connection.execute(query)).mappings()]

        return await self._retry(lambda: asyncio.shield(read()))

    async def _write(self, statement: Any) -> int:
        """Execute the statement, and return the number of changed rows."""
        return (await self._execute(statement)).rowcount

    async def _write_returning(self, statement: Any, again: Any = None) -> Sequence[Mapping[str, Any]]:
        return (await self._execute(statement, again)).mappings().all()

    async def _execute(self, statement: Any, again: Any = None) -> Any:
        """Execute the statement; where its outcome is unknown, repeat it, or execute `again` instead."""
        statements = chain([statement], repeat(statement if again is None else again))

        async def execute(one: Any) -> Any:
            async with self.engine.begin() as connection:
                result = await connection.execute(one)
                return result.freeze()() if result.returns_rows else result

        # Shielded: a write that is cancelled half way would leave SQLite locked.
        return await self._retry(lambda: asyncio.shield(execute(next(statements))))


async def _call(operation: Callable[[], Awaitable[T]]) -> T:
    return await operation()


def _is_current(run: BackgroundRun) -> tuple[Any, ...]:
    return runs.c.run_id == run.run_id, runs.c.attempt == run.attempt, runs.c.status.not_in(FINAL)


async def create_tables(engine: AsyncEngine) -> None:
    """Create the tables that do not exist."""
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Two processes that create the same table at once fail.
            await connection.execute(text("select pg_advisory_xact_lock(hashtextextended('-run-tables', 0))"))
        await connection.run_sync(metadata.create_all)
