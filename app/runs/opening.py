"""What background runs need, opened with the service and closed with it."""

import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from app.agents import Agents
from app.database.database import Database
from app.runs.records import RunRecords, make_tables
from app.settings import Settings
from app.turns import Turns

if TYPE_CHECKING:
    from app.runs.runs import Runs

# From Python 3.12 on DBOS asks SQLite for fractions of a second.
_SQLITE = (3, 42)


def missing(settings: Settings) -> str | None:
    """Return what background runs lack here, in a sentence; None where they work."""
    if not find_spec("dbos"):
        return "Background runs need DBOS: install it (pip install 'dbos>=3.4,<4')."
    old = sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < _SQLITE
    if old and settings.postgres_url is None:
        return (
            f"Background runs need SQLite 3.42, this Python has {sqlite3.sqlite_version}: set DATABASE_URL to Postgres."
        )
    return None


@asynccontextmanager
async def open_runs(
    settings: Settings, database: Database, turns: Turns, agents: Agents
) -> "AsyncIterator[Runs | None]":
    """Yield the background runs, None where something for them is missing.

    With Postgres the engine starts at once, to do what others have accepted; with SQLite where runs wait for it.
    """
    if missing(settings):
        yield None
        return
    from app.runs.runs import Runs  # the engine takes time and memory, which an install without it does without

    async with database.engine.begin() as connection:
        await make_tables(connection)
    runs = Runs(
        records=RunRecords(database.engine),
        turns=turns,
        graphs=agents.graphs,
        checkpoints=database.checkpoints,
        engine_url=settings.postgres_url or f"sqlite:///{settings.data_dir.absolute() / 'engine.db'}",
        heartbeat_s=settings.heartbeat_s,
        timeout_s=settings.run_timeout_s,
        concurrency=settings.run_concurrency,
        alone=settings.postgres_url is None,
    )
    turns.has_run = runs.works_on
    await runs.resume()
    try:
        yield runs
    finally:
        await runs.stop()
