"""All the spool files of a folder, whoever owns them: what waits there, and the dead letters."""

import logging
import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from telemetry.delivery.claim import Claim, TakenError, accepted_in
from telemetry.delivery.spool import DeadLetter, Spool, Waiting, age

logger = logging.getLogger(__name__)


class Folder(NamedTuple):
    """What waits in all the files of a folder, whoever owns them."""

    files: int = 0
    waiting: Waiting = Waiting()


def refusal(folder: Path) -> str | None:
    """Return why nothing can be written there, None where something can; the folder is left as it was, or missing."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
    return None


def look(database: Path) -> Waiting | None:
    """Return what waits in the file of another process; None if it cannot be told now."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0.2)) as connection:
            accepted = accepted_in(database.with_suffix(".lock"))
            rows, size, oldest, dead = connection.execute(
                "SELECT count(*), ifnull(sum(length(body)), 0), min(at), (SELECT count(*) FROM dead) FROM waiting"
                " WHERE (seq > ? OR kind <> 'span')",
                (accepted,),
            ).fetchone()
    except (sqlite3.Error, OSError):
        return None
    return Waiting(rows, size, age(oldest), dead)


def dead_letters(database: Path) -> list[DeadLetter]:
    """Return the dead letters of a file, whoever owns it."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            return [DeadLetter._make(row) for row in connection.execute("SELECT * FROM dead ORDER BY at")]
    except sqlite3.Error:
        return []


def forget_dead(database: Path, letters: Iterable[DeadLetter]) -> None:
    """Forget these dead letters of a file, whoever owns it."""
    with closing(sqlite3.connect(database, timeout=5, isolation_level=None)) as connection:
        connection.executemany("DELETE FROM dead WHERE id = ?", [(letter.id,) for letter in letters])


def drop_foreign(folder: Path, destination: str, oldest: float) -> int:
    """Remove dead processes' files for other destinations, last written before this time; returns how many rows went.

    Nobody sends them once the endpoint or the key has changed, and what people said is in them.
    """
    locks = [lock for lock in folder.glob("*.lock") if not lock.name.startswith(f"{destination}-")]
    return sum(_drop_foreign(lock) for lock in locks if written(lock.with_suffix(".db")) < oldest)


def drop_corrupt(folder: Path, oldest: float) -> int:
    """Remove files that were set aside before this time; returns how many."""
    old = [path for path in folder.glob("*.corrupt") if path.stat().st_ctime < oldest]
    for path in old:
        for end in ("-wal", "-shm", ""):
            Path(f"{path}{end}").unlink(missing_ok=True)
        logger.warning("%s could not be read and is beyond TELEMETRY_SPOOL_MAX_AGE: it is removed", path)
    return len(old)


def _drop_foreign(lock: Path) -> int:
    try:
        claim = Claim(lock)
    except (TakenError, OSError):
        return 0
    rows = (look(lock.with_suffix(".db")) or Waiting()).rows
    claim.remove()
    claim.give_up()
    logger.warning(
        "%s is for another backend and beyond TELEMETRY_SPOOL_MAX_AGE: it is removed, with %d spans", lock.stem, rows
    )
    return rows


def written(database: Path) -> float:
    """Return when a file was last written, which none of its rows is younger than; a missing one is just being made."""
    times = [each.stat().st_mtime for each in (database, Path(f"{database}-wal")) if each.exists()]
    return max(times, default=math.inf)


def survey(folder: Path, ours: Iterable[Spool]) -> Folder:
    """Return what waits in the folder; of our own files without a look at the disk."""
    known = {spool.name: spool for spool in ours if spool.on_disk}
    found = [_waiting(known.get(path.stem), path) for path in folder.glob("*.db")]
    rows, sizes, ages, dead = zip(*found, strict=True) if found else ([0], [0], [0.0], [0])
    return Folder(len(found), Waiting(sum(rows), sum(sizes), max(ages), sum(dead)))


def _waiting(ours: Spool | None, database: Path) -> Waiting:
    if ours is None:
        return look(database) or Waiting()
    try:
        return ours.waiting()
    except sqlite3.Error:  # broken, or replaced at this moment
        return Waiting()
