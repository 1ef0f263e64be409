"""Background runs as the database knows them; whoever writes for an attempt that is over writes nothing."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.database.records import STOPPING, insert_into
from telemetry import TraceRef

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


class Fenced(Exception):  # noqa: N818 - named for what happened
    """The attempt is over: another one has begun, or the run has ended."""


@dataclass(frozen=True)
class BackgroundRun:
    """A run that outlives its request; its trace is the request's."""

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
        """Whether it has its final status."""
        return self.status in FINAL

    @property
    def trace(self) -> TraceRef | None:
        """Where it was asked for."""
        return TraceRef(self.trace_id, self.span_id, self.sampled) if self.trace_id and self.span_id else None


@dataclass(frozen=True)
class AttemptRecord:
    """One stretch of a run in one process; `sampled` is whether its trace is recorded, and was kept at its end."""

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
        """Where it is recorded."""
        return TraceRef(self.trace_id, self.span_id, self.sampled) if self.trace_id and self.span_id else None


class RunRecords:
    """The background runs of all processes that share the database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._upsert = insert_into(engine)

    async def add(self, run: BackgroundRun) -> None:
        """Keep a run that waits for its turn."""
        await self._change(insert(runs).values(asdict(run)))

    async def run(self, run_id: str) -> BackgroundRun | None:
        """Return the run, None where there is none."""
        found = await self._rows(select(runs).where(runs.c.run_id == run_id))
        return BackgroundRun(**found[0]) if found else None

    async def of_user(self, user_id: str, most: int) -> Sequence[BackgroundRun]:
        """Return the user's latest runs."""
        query = select(runs).where(runs.c.user_id == user_id).order_by(runs.c.created.desc()).limit(most)
        return [BackgroundRun(**row) for row in await self._rows(query)]

    async def unfinished(self, **where: str) -> Sequence[BackgroundRun]:
        """Return the runs without a final status, of this owner or on this thread."""
        query = select(runs).where(runs.c.status.not_in(FINAL), *(runs.c[key] == value for key, value in where.items()))
        return [BackgroundRun(**row) for row in await self._rows(query)]

    async def forget_thread(self, thread_id: str) -> None:
        """Let nothing be left of the thread's runs."""
        its = select(runs.c.run_id).where(runs.c.thread_id == thread_id)
        for table in (events, attempts):
            await self._change(delete(table).where(table.c.run_id.in_(its)))
        await self._change(delete(answers).where(answers.c.thread_id == thread_id))
        await self._change(delete(runs).where(runs.c.thread_id == thread_id))

    async def attempts(self, run_id: str) -> Sequence[AttemptRecord]:
        """Return the run's attempts, the first one first."""
        query = select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.attempt)
        return [AttemptRecord(**row) for row in await self._rows(query)]

    async def begin(self, run_id: str, owner: str) -> BackgroundRun:
        """Begin the run's next attempt, which ends every earlier one; raises `Fenced` for a run that is over."""
        change = update(runs).where(runs.c.run_id == run_id, runs.c.status.not_in(FINAL))
        status = case((runs.c.status == STOPPING, STOPPING), else_="running")
        begun = change.values(attempt=runs.c.attempt + 1, owner=owner, status=status)
        for row in await self._made(begun.returning(*runs.c)):
            return BackgroundRun(**row)
        raise Fenced(run_id)

    async def stop(self, run_id: str) -> None:
        """Note that the run is to end, for whoever makes its present attempt or its next one."""
        await self._change(
            update(runs).where(runs.c.run_id == run_id, runs.c.status.not_in(FINAL)).values(status=STOPPING)
        )

    async def record(self, attempt: AttemptRecord) -> None:
        """Keep an attempt that begins."""
        await self._change(insert(attempts).values(asdict(attempt)))

    async def revoke(self, run: BackgroundRun) -> BackgroundRun:
        """Return the run, its attempt ended, whoever makes it; raises `Fenced` where that is over already."""
        taken = replace(run, attempt=run.attempt + 1)
        if not await self._change(update(runs).where(*_mine(run)).values(attempt=taken.attempt)):
            raise Fenced(run.run_id)
        return taken

    async def close(self, attempt: BackgroundRun | AttemptRecord, status: str, *, kept: bool | None = None) -> None:
        """Keep how an attempt ended, or the run's present one, and whether its trace is kept where that is known."""
        which = (attempts.c.run_id == attempt.run_id) & (attempts.c.attempt == attempt.attempt)
        known = {"status": status} if kept is None else {"status": status, "sampled": kept}
        await self._change(update(attempts).where(which).values(known))

    async def end(self, run: BackgroundRun, status: str, error: str | None = None) -> None:
        """Give the run its final status; raises `Fenced` where this attempt may not."""
        change = update(runs).where(*_mine(run)).values(status=status, ended=time.time(), error=error)
        if not await self._change(change):
            raise Fenced(run.run_id)

    async def check(self, run: BackgroundRun) -> None:
        """Raise `Fenced` unless this attempt is the run's last one."""
        if not await self._rows(select(runs.c.run_id).where(*_mine(run))):
            raise Fenced(run.run_id)

    async def beat(self, run: BackgroundRun) -> None:
        """Note that the attempt lives; raises `Fenced` where it may not."""
        await self.check(run)
        which = (attempts.c.run_id == run.run_id) & (attempts.c.attempt == run.attempt)
        await self._change(update(attempts).where(which).values(beat=time.time()))

    async def tell(self, run: BackgroundRun, body: str) -> None:
        """Keep one more event of the run; raises `Fenced` where this attempt may not."""
        number = select(func.coalesce(func.max(events.c.number), 0) + 1).where(events.c.run_id == run.run_id)
        source = select(literal(run.run_id), number.scalar_subquery(), literal(body)).where(exists().where(*_mine(run)))
        kept = insert(events).from_select(["run_id", "number", "body"], source)
        if not await self._made(kept.returning(events.c.number)):
            raise Fenced(run.run_id)

    async def events(self, run_id: str, after: int) -> Sequence[tuple[int, str]]:
        """Return the run's events behind this number."""
        query = select(events.c.number, events.c.body).where(events.c.run_id == run_id, events.c.number > after)
        return [(row["number"], row["body"]) for row in await self._rows(query.order_by(events.c.number))]

    async def begin_call(self, run: BackgroundRun, call_id: str) -> tuple[bool, str | None]:
        """Note that a tool's call begins; returns whether it had begun before, and its answer."""
        await self.check(run)
        query = select(answers.c.body).where(answers.c.thread_id == run.thread_id, answers.c.call_id == call_id)
        found = await self._rows(query)
        if found:
            return True, found[0]["body"]
        row = {"thread_id": run.thread_id, "call_id": call_id, "run_id": run.run_id}
        await self._change(self._upsert(answers).values(row).on_conflict_do_nothing())
        return False, None

    async def keep_answer(self, run: BackgroundRun, call_id: str, body: str) -> None:
        """Keep the answer of a tool's call; raises `Fenced` where this attempt may not."""
        which = (answers.c.thread_id == run.thread_id) & (answers.c.call_id == call_id)
        if not await self._change(update(answers).where(which, exists().where(*_mine(run))).values(body=body)):
            raise Fenced(run.run_id)

    async def sign(self, executor: str) -> None:
        """Note that this process lives."""
        row = {"executor": executor, "beat": time.time()}
        statement = self._upsert(executors).values(row)
        await self._change(statement.on_conflict_do_update(index_elements=["executor"], set_={"beat": row["beat"]}))

    async def silent(self, since: float, but: str = "") -> Mapping[str, float]:
        """Return the processes that have not been heard of since then, with the time when they were."""
        query = select(executors).where(executors.c.beat < since, executors.c.executor != but)
        return {row["executor"]: row["beat"] for row in await self._rows(query)}

    async def claim(self, executor: str, beat: float) -> bool:
        """Take over from a silent process; returns False where somebody else has been quicker."""
        which = (executors.c.executor == executor) & (executors.c.beat == beat)
        return await self._change(update(executors).where(which).values(beat=time.time()))

    async def forget(self, executor: str) -> None:
        """Let a process be known no more, once nothing is left of it."""
        await self._change(delete(executors).where(executors.c.executor == executor))

    async def leave(self, executor: str) -> None:
        """Note that a process goes: what it has not ended is for others, at once."""
        await self._change(update(executors).where(executors.c.executor == executor).values(beat=0.0))

    async def _rows(self, query: Any) -> Sequence[Mapping[str, Any]]:
        return await asyncio.shield(self._read(query))

    async def _read(self, query: Any) -> Sequence[Mapping[str, Any]]:
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def _change(self, statement: Any) -> bool:
        return (await asyncio.shield(self._write(statement))).rowcount > 0

    async def _made(self, statement: Any) -> Sequence[Mapping[str, Any]]:
        return (await asyncio.shield(self._write(statement))).mappings().all()

    async def _write(self, statement: Any) -> Any:
        # Shielded: a write that is cancelled half way would leave SQLite locked.
        async with self.engine.begin() as connection:
            done = await connection.execute(statement)
            return done.freeze()() if done.returns_rows else done


def _mine(run: BackgroundRun) -> tuple[Any, ...]:
    return runs.c.run_id == run.run_id, runs.c.attempt == run.attempt, runs.c.status.not_in(FINAL)


async def make_tables(connection: AsyncConnection) -> None:
    """Make the tables that are not there."""
    await connection.run_sync(metadata.create_all)
