"""All the spool files of a folder, whoever owns them: what waits there, and the dead letters."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from telemetry.claim import accepted_in
from telemetry.spool import DeadLetter, Spool, Waiting, age


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
