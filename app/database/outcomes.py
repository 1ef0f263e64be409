"""What runs came to and what their users thought of it, beside the records of the runs themselves."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, Integer, String, Table, Text, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.database.records import insert_into, tables
from app.schema import Figures, Vote

outcomes = Table(
    "run_outcomes",
    tables,
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("kept", Boolean, nullable=False),
    Column("error", Text),
    Column("duration_ms", Integer),
    Column("first_token_ms", Integer),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost", Float),
)
votes = Table(
    "run_votes",
    tables,
    Column("run_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("score", JSON, nullable=False),
    Column("comment", Text),
)
questions = Table(
    "run_questions",
    tables,
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("asked", JSON, nullable=False),
)


@dataclass(frozen=True)
class Outcome:
    """What a run came to; `kept` is whether its trace is."""

    run_id: str
    thread_id: str
    kept: bool
    error: str | None
    figures: Figures


@dataclass(frozen=True)
class Outcomes:
    """The outcomes and votes in the service's database."""

    engine: AsyncEngine

    async def keep(self, outcome: Outcome) -> None:
        """Keep what a run, or its latest attempt, came to."""
        row = asdict(outcome) | outcome.figures.model_dump()
        await self._put(outcomes, {name: row[name] for name in (column.name for column in outcomes.c)}, ["run_id"])

    async def kept(self, run_id: str) -> bool | None:
        """Return whether the run's trace is kept, None where that is not known yet."""
        async with self.engine.connect() as connection:
            return await connection.scalar(select(outcomes.c.kept).where(outcomes.c.run_id == run_id))

    async def set_kept(self, run_id: str, *, kept: bool) -> None:
        """Keep what was decided about the run's trace."""
        async with self.engine.begin() as connection:
            await connection.execute(update(outcomes).where(outcomes.c.run_id == run_id).values(kept=kept))

    async def ask(self, run_id: str, thread_id: str, asked: Sequence[Any]) -> None:
        """Keep what the run asked its user before it could go on."""
        await self._put(questions, {"run_id": run_id, "thread_id": thread_id, "asked": list(asked)}, ["run_id"])

    async def vote(self, run_id: str, thread_id: str, vote: Vote) -> None:
        """Keep what the run's user thinks of it, in the place of an earlier word under the same key."""
        await self._put(votes, {"run_id": run_id, "thread_id": thread_id, **vote.model_dump()}, ["run_id", "key"])

    async def take_back(self, run_id: str, key: str) -> None:
        """Forget what the run's user thought of it."""
        async with self.engine.begin() as connection:
            await connection.execute(delete(votes).where(votes.c.run_id == run_id, votes.c.key == key))

    async def of_thread(self, thread_id: str) -> Mapping[str, Outcome]:
        """Return the outcomes of the thread's runs, by the run's id."""
        found: dict[str, Outcome] = {}
        for row in await self._rows(outcomes, thread_id):
            known = {name: row[name] for name in ("run_id", "thread_id", "kept", "error")}
            found[row["run_id"]] = Outcome(**known, figures=Figures.model_validate(row, from_attributes=False))
        return found

    async def votes_of(self, thread_id: str) -> Mapping[str, list[Vote]]:
        """Return what was thought of the thread's runs, by the run's id."""
        found: defaultdict[str, list[Vote]] = defaultdict(list)
        for row in await self._rows(votes, thread_id):
            found[row["run_id"]].append(Vote(key=row["key"], score=row["score"], comment=row["comment"]))
        return found

    async def asked_in(self, thread_id: str) -> Mapping[str, list[Any]]:
        """Return what the thread's runs asked, by the run's id."""
        return {row["run_id"]: row["asked"] for row in await self._rows(questions, thread_id)}

    async def _rows(self, table: Table, thread_id: str) -> Sequence[dict[str, Any]]:
        async with self.engine.connect() as connection:
            query = select(table).where(table.c.thread_id == thread_id)
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def _put(self, table: Table, row: dict[str, Any], key: list[str]) -> None:
        statement = insert_into(self.engine)(table).values(row).on_conflict_do_update(index_elements=key, set_=row)
        async with self.engine.begin() as connection:
            await connection.execute(statement)


async def forget(connection: AsyncConnection, thread_id: str) -> None:
    """Let nothing be known of the thread's runs."""
    for table in (outcomes, votes, questions):
        await connection.execute(delete(table).where(table.c.thread_id == thread_id))
