"""Open and close the background runs with the service."""

import asyncio
import logging
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from app.agents import Agents
from app.database.database import Database
from app.runs.store import BackgroundRunStore, EngineUnusableError, create_tables
from app.settings import ServiceSettings
from app.turns import Turns
from telemetry.span import one_line

if TYPE_CHECKING:
    from app.runs.runs import BackgroundRuns

logger = logging.getLogger(__name__)

# From Python 3.12 on, DBOS needs SQLite's fractions of a second.
_SQLITE_VERSION = (3, 42)


def missing_requirement(settings: ServiceSettings) -> str | None:
    """Return a sentence with the missing requirement of background runs; None if they work."""
    if not find_spec("dbos"):
        return "Background runs need DBOS: install it (pip install 'dbos>=3.4,<4')."
    too_old = sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < _SQLITE_VERSION
    if too_old and settings.postgres_url is None:
        return (
            f"Background runs need SQLite 3.42, this Python has {sqlite3.sqlite_version}: set DATABASE_URL to Postgres."
        )
    return None


async def forget_in_engine(settings: ServiceSettings, run_ids: Sequence[str]) -> None:
    """Delete what the engine has stored about these runs, which are over."""
    if run_ids and find_spec("dbos"):
        try:
            await asyncio.to_thread(_delete_workflows, _engine_url(settings), run_ids)
        except Exception as error:  # noqa: BLE001 - a damaged file keeps nobody from deleting a thread
            logger.warning("the engine could not delete %d runs: %s", len(run_ids), one_line(error))


def _delete_workflows(url: str, run_ids: Sequence[str]) -> None:
    from dbos import DBOSClient

    client = DBOSClient(system_database_url=url, retry_connection_errors=False)
    try:
        client.delete_workflows(list(run_ids))
    finally:
        client.destroy()


def _engine_file(settings: ServiceSettings) -> Path | None:
    return settings.data_dir.absolute() / "engine.db" if settings.postgres_url is None else None


def _engine_url(settings: ServiceSettings) -> str:
    return settings.postgres_url or f"sqlite:///{_engine_file(settings)}"


@asynccontextmanager
async def open_runs(
    settings: ServiceSettings, database: Database, turns: Turns, agents: Agents
) -> "AsyncIterator[BackgroundRuns | None]":
    """Yield the background runs, None if a requirement is missing.

    With Postgres the engine starts at once, to execute runs that other processes have accepted; with SQLite it starts
    when runs are waiting.
    """
    await create_tables(database.engine)
    if missing_requirement(settings):
        yield None
        return
    from app.runs.runs import BackgroundRuns  # DBOS is optional, and takes time and memory to import

    engine_file = _engine_file(settings)
    runs = BackgroundRuns(
        store=BackgroundRunStore(database.engine),
        turns=turns,
        graphs=agents.graphs,
        availability=database.availability,
        engine_url=_engine_url(settings),
        engine_file=engine_file,
        heartbeat_s=settings.heartbeat_s,
        timeout_s=settings.run_timeout_s,
        concurrency=settings.run_concurrency,
        single_process=settings.postgres_url is None,
    )
    turns.has_background_run = runs.has_unfinished_run
    try:
        await runs.resume()
    except EngineUnusableError as error:
        # The rest of the service works without it.
        logger.error("%s", error)  # noqa: TRY400 - the message is complete without a traceback
    try:
        yield runs
    finally:
        await runs.stop()
