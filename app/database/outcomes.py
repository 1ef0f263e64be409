"""The outcomes, votes and questions of runs, stored separately from the runs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, Integer, String, Table, Text, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.database.thread_store import insert_into, tables
from app.schema import Figures, SpanInfo, Vote
from telemetry.span_tree import SpanSummary

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

run_messages = Table(
    "run_messages",
    tables,
    Column("thread_id", String, primary_key=True),
    Column("message_id", String, primary_key=True),
    Column("run_id", String, nullable=False),
)
# What was asked and answered, case-folded, to be searched.
run_words = Table(
    "run_words",
    tables,
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("words", Text, nullable=False),
)
# The tree of each turn, without its content.
run_spans = Table(
    "run_spans",
    tables,
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("spans", JSON, nullable=False),
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `kept` is whether its trace is kept."""

    run_id: str
    thread_id: str
    kept: bool
    error: str | None
    figures: Figures


@dataclass(frozen=True)
class Outcomes:
    """The outcomes, votes and questions in the service's database."""

    engine: AsyncEngine

    async def save(self, outcome: Outcome) -> None:
        """Store the outcome of a run, or of its latest attempt."""
        row = asdict(outcome) | outcome.figures.model_dump()
        await self._upsert(outcomes, {name: row[name] for name in outcomes.c.keys()}, ["run_id"])  # noqa: SIM118 - a collection of columns iterates over columns

    async def is_kept(self, run_id: str) -> bool | None:
        """Return whether the run's trace is kept, None if that is not known yet."""
        async with self.engine.connect() as connection:
            return await connection.scalar(select(outcomes.c.kept).where(outcomes.c.run_id == run_id))

    async def set_kept(self, run_id: str, *, kept: bool) -> None:
        """Store whether the run's trace is kept."""
        async with self.engine.begin() as connection:
            await connection.execute(update(outcomes).where(outcomes.c.run_id == run_id).values(kept=kept))

    async def save_questions(self, run_id: str, thread_id: str, asked: Sequence[Any]) -> None:
        """Store the questions that the run asked its user."""
        await self._upsert(questions, {"run_id": run_id, "thread_id": thread_id, "asked": list(asked)}, ["run_id"])

    async def save_words(self, run_id: str, thread_id: str, question: str, answer: str) -> None:
        """Store what was asked and answered, for searching."""
        row = {"run_id": run_id, "thread_id": thread_id, "words": f"{question}\n{answer}".casefold()}
        await self._upsert(run_words, row, ["run_id"])

    async def save_spans(self, run_id: str, thread_id: str, spans: Sequence[SpanSummary]) -> None:
        """Store the tree of the run, or of its latest attempt."""
        row = {"run_id": run_id, "thread_id": thread_id, "spans": [asdict(span) for span in spans]}
        await self._upsert(run_spans, row, ["run_id"])

    async def spans_of(self, run_id: str) -> Sequence[SpanInfo]:
        """Return the tree of the run; empty if it was not recorded, or is not over."""
        async with self.engine.connect() as connection:
            spans = await connection.scalar(select(run_spans.c.spans).where(run_spans.c.run_id == run_id))
        return [SpanInfo.model_validate(span) for span in spans or ()]

    async def save_messages(self, run_id: str, thread_id: str, message_ids: Iterable[str]) -> None:
        """Store that these messages belong to the run, except those that already belong to another run."""
        rows = [{"thread_id": thread_id, "message_id": message_id, "run_id": run_id} for message_id in message_ids]
        if rows:
            async with self.engine.begin() as connection:
                await connection.execute(insert_into(self.engine)(run_messages).on_conflict_do_nothing(), rows)

    async def messages_of(self, thread_id: str) -> Mapping[str, str]:
        """Return the runs of the thread's messages, by the message's id."""
        return {row["message_id"]: row["run_id"] for row in await self._rows(run_messages, thread_id)}

    async def save_vote(self, run_id: str, thread_id: str, vote: Vote) -> None:
        """Store the vote of the run's user; it replaces an earlier one under the same key."""
        await self._upsert(votes, {"run_id": run_id, "thread_id": thread_id, **vote.model_dump()}, ["run_id", "key"])

    async def delete_vote(self, run_id: str, key: str) -> None:
        """Delete the vote of the run's user under this key."""
        async with self.engine.begin() as connection:
            await connection.execute(delete(votes).where(votes.c.run_id == run_id, votes.c.key == key))

    async def of_thread(self, thread_id: str) -> Mapping[str, Outcome]:
        """Return the outcomes of the thread's runs, by the run's id."""
        found: dict[str, Outcome] = {}
        for row in await self._rows(outcomes, thread_id):
            fields = {name: row[name] for name in ("run_id", "thread_id", "kept", "error")}
            found[row["run_id"]] = Outcome(**fields, figures=Figures.model_validate(row, from_attributes=False))
        return found

    async def votes_of(self, thread_id: str) -> Mapping[str, list[Vote]]:
        """Return the votes on the thread's runs, by the run's id."""
        found: defaultdict[str, list[Vote]] = defaultdict(list)
        for row in await self._rows(votes, thread_id):
            found[row["run_id"]].append(Vote(key=row["key"], score=row["score"], comment=row["comment"]))
        return found

    async def questions_of(self, thread_id: str) -> Mapping[str, list[Any]]:
        """Return the questions of the thread's runs, by the run's id."""
        return {row["run_id"]: row["asked"] for row in await self._rows(questions, thread_id)}

    async def _rows(self, table: Table, thread_id: str) -> Sequence[dict[str, Any]]:
        async with self.engine.connect() as connection:
            query = select(table).where(table.c.thread_id == thread_id)
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def _upsert(self, table: Table, row: dict[str, Any], key: list[str]) -> None:
        statement = insert_into(self.engine)(table).values(row).on_conflict_do_update(index_elements=key, set_=row)
        async with self.engine.begin() as connection:
            await connection.execute(statement)


async def delete_outcomes(connection: AsyncConnection, thread_id: str) -> None:
    """Delete the outcomes, votes, questions, message ids, words and trees of the thread's runs."""
    for table in (outcomes, votes, questions, run_messages, run_words, run_spans):
        await connection.execute(delete(table).where(table.c.thread_id == thread_id))
