"""`python -m app prune`: remove threads that nobody uses any more, and checkpoints that no turn needs."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from dotenv import load_dotenv
from sqlalchemy import func, select

from app.checkpoint_pruning import CheckpointPruning
from app.database.branches import Branches, thread_of_checkpoints
from app.database.connect import open_database, unusable_database
from app.database.database import Database
from app.database.thread_locks import locked
from app.database.thread_store import Thread, runs
from app.database.turn_events import TurnEvents
from app.files.connect import connect_files
from app.retention import Retention
from app.runs.store import create_tables
from app.settings import ServiceSettings, load_settings
from app.threads import Threads
from telemetry import SettingsError

MEGABYTE = 1_000_000


@dataclass
class Amount:
    """How much there is of what would be removed."""

    threads: int = 0
    turns: int = 0
    files: int = 0
    size: int = 0

    def __str__(self) -> str:
        return f"{self.threads} threads with {self.turns} turns and {self.files} files, {_megabytes(self.size)}"


def main(arguments: Sequence[str]) -> int:
    """Remove, or only show, what is no longer used; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app prune",
        description="Remove threads that were not used for some days, with their messages, runs and files, and the "
        "checkpoints of ended turns of all others. With SQLite, stop the service first. Traces are not removed.",
    )
    parser.add_argument("--days", type=_days, help="without a turn or an upload; default: RETENTION_DAYS, or no thread")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed, and its bytes")
    parsed = parser.parse_args(arguments)
    load_dotenv()
    try:
        return asyncio.run(_prune(load_settings(), parsed.days, dry_run=parsed.dry_run))
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the sentence is for the person who started it
        return 2


def _days(text: str) -> float:
    with suppress(ValueError):
        if 0 < (days := float(text)) < 100_000:
            return days
    raise argparse.ArgumentTypeError(f"{text}: name a number of days above 0")


async def _prune(settings: ServiceSettings, days: float | None, *, dry_run: bool) -> int:
    with unusable_database(settings):
        async with open_database(settings) as database:
            await create_tables(database.engine)
            files = await connect_files(settings, database.engine)
            threads = Threads(database.engine, files, database.checkpoints, settings)
            retention = Retention(database, threads, partial(locked, database.thread_locks))
            days = settings.retention_days if days is None else days
            since = None if days is None else datetime.now(UTC) - timedelta(days=days)
            return await (_show(retention, since) if dry_run else _remove(retention, since))


async def _show(retention: Retention, since: datetime | None) -> int:
    database, unused, total = retention.database, dict[str, Thread](), Amount()
    if since is None:
        _print("No thread would be removed: name --days, or set RETENTION_DAYS.")
    else:
        while found := await retention.unused(since, unused):
            for thread in found:
                unused[thread.thread_id] = thread
                await _add(total, retention, thread)
        _print(f"Not used since {since:%Y-%m-%d %H:%M} UTC: {total}.")
    found = await database.checkpoints.earlier_bytes()
    earlier = {key: size for key, size in found.items() if thread_of_checkpoints(key) not in unused}
    _print(f"Checkpoints of ended turns: in {len(earlier)} other threads, {_megabytes(sum(earlier.values()))}.")
    _print("Nothing was removed: run it without --dry-run to remove this.")
    return 0


async def _remove(retention: Retention, since: datetime | None) -> int:
    if since is not None:
        removed = await retention.remove_unused(since)
        if removed is None:
            _print("Another process is removing threads now: try again later.")
            return 1
        _print(f"Removed {removed} threads.")
        await retention.threads.remove_leftovers()
    database = retention.database
    await TurnEvents(database.engine).delete_old()
    earlier, pruning = await database.checkpoints.earlier_bytes(), CheckpointPruning(database)
    for thread_id in earlier:
        await pruning.prune(thread_id)
    await database.compact()
    _print(f"Removed checkpoints of ended turns in {len(earlier)} threads, {_megabytes(sum(earlier.values()))}.")
    return 0


async def _add(total: Amount, retention: Retention, thread: Thread) -> None:
    database: Database = retention.database
    files = await retention.threads.files.of_thread(thread.thread_id, thread.user_id)
    said = func.coalesce(func.sum(func.length(runs.c.message)), 0)
    query = select(func.count(), said).where(runs.c.thread_id == thread.thread_id)
    async with database.engine.connect() as connection:
        turns, size = (await connection.execute(query)).one()
    total.threads += 1
    total.turns += turns
    total.files += len(files)
    total.size += size + sum(file.size for file in files)
    for checkpoints in await Branches(database.engine).checkpoint_threads(thread.thread_id):
        total.size += await database.checkpoints.bytes_of(checkpoints)


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB"


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's output
