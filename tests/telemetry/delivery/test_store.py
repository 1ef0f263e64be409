"""The spool's files: what is in them, whose they are, what becomes of broken ones."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.delivery.lock import LockedError, SpoolLock, orphaned_locks
from telemetry.delivery.spool import drop_corrupt, drop_foreign, inspect, survey
from telemetry.delivery.store import MEDIA, SPAN, DeadLetter, Row, SpoolStore, adopt, quarantine

NOW = 1_700_000_000.0
ALL = 10**9


@pytest.fixture
def file(tmp_path: Path) -> SpoolStore:
    return SpoolStore.create(tmp_path / "spool", "here")


def fill(file: SpoolStore, *bodies: bytes, at: float = NOW) -> None:
    file.append(SPAN, [(at, body) for body in bodies])


def bodies(file: SpoolStore) -> list[bytes]:
    return [row.body for row in file.take(SPAN, ALL, ALL)]


def orphan(folder: Path, count: int = 3, destination: str = "here") -> Path:
    """The file of a process that has died; its lock."""
    code = (
        "import os, pathlib\n"
        "from telemetry.delivery.store import MEDIA, SPAN, SpoolStore\n"
        f"file = SpoolStore.create(pathlib.Path({str(folder)!r}), {destination!r})\n"
        f"for n in range({count}): file.append(SPAN, [({NOW} + n, b'%d' % n)])\n"
        "print(file.lock.path, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    return Path(done.stdout.strip())


def test_rows_come_out_in_the_order_they_went_in(file: SpoolStore) -> None:
    """First in, first out, in batches by bytes."""
    fill(file, b"aa", b"bb", b"cc")
    fill(file, b"dd")
    assert [row.body for row in file.take(SPAN, 5, ALL)] == [b"aa", b"bb"]
    assert [row.body for row in file.take(SPAN, ALL, 3)] == [b"aa", b"bb", b"cc"]
    assert [row.body for row in file.take(SPAN, ALL, 1, after=1, skip=1)] == [b"cc"]


def test_a_row_above_the_limit_goes_alone(file: SpoolStore) -> None:
    """A batch has one row at least, or the queue would never move."""
    fill(file, b"x" * 100, b"y")
    assert [len(row.body) for row in file.take(SPAN, 10, ALL)] == [100]


def test_accepted_rows_are_gone(file: SpoolStore) -> None:
    """What the backend has is forgotten, and the figures follow."""
    fill(file, b"aa", b"bb", b"cc")
    file.mark_accepted(file.take(SPAN, ALL, 2))
    assert bodies(file) == [b"cc"]
    assert (file.rows, file.size, file.lock.committed) == (1, 2, 3)


def test_accepted_rows_are_gone_even_if_the_disk_is_full(file: SpoolStore, tmp_path: Path) -> None:
    """The mark alone keeps them from going twice, also for the next owner."""
    fill(file, b"aa", b"bb", b"cc")
    file._write.execute("PRAGMA query_only = 1")  # no row can be deleted now
    file.mark_accepted(file.take(SPAN, ALL, 2))
    assert bodies(file) == [b"cc"]
    file.close()
    [lock] = orphaned_locks(tmp_path / "spool", "here")
    adopted = adopt(lock)
    assert adopted
    assert (bodies(adopted), adopted.rows) == ([b"cc"], 1)


@pytest.mark.parametrize(
    "accept", [lambda file, rows: file.mark_accepted(rows), lambda file, rows: file.remove(rows[0])]
)
def test_a_file_is_not_closed_between_the_count_and_the_disk(
    file: SpoolStore, monkeypatch: pytest.MonkeyPatch, accept: Callable[[SpoolStore, list[Row]], None]
) -> None:
    """A file whose last row is accepted counts as empty, and another thread may close it if the disk is full."""
    file.append(SPAN, [(1.0, b"one")])
    rows, count, closing = file.take(SPAN, 10, 10), file._count, threading.Thread(target=file.close)

    def count_and_close(kind: str, rows: int, size: int) -> None:
        count(kind, rows, size)
        closing.start()
        closing.join(0.3)

    monkeypatch.setattr(file, "_count", count_and_close)
    accept(file, rows)
    closing.join(10)
    assert file.is_empty
    accept(file, rows)  # of a closed file nothing is left to remove


def test_another_kind_is_not_covered_by_the_mark_for_spans(file: SpoolStore) -> None:
    """Rows of another kind wait for their own delivery."""
    file.append(MEDIA, [(NOW, b"mine")])
    fill(file, b"aa")
    file.mark_accepted(file.take(SPAN, ALL, ALL))
    assert [row.body for row in file.take(MEDIA, ALL, ALL)] == [b"mine"]
    assert bodies(file) == []


def test_only_the_owner_may_read(file: SpoolStore, tmp_path: Path) -> None:
    """What people said is for nobody else on the machine."""
    fill(file, b"secret")
    folder = tmp_path / "spool"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_the_file_of_a_living_owner_is_not_adopted(file: SpoolStore, tmp_path: Path) -> None:
    """One row has one deliverer."""
    fill(file, b"mine")
    assert list(orphaned_locks(tmp_path / "spool", "here")) == []
    with pytest.raises(LockedError):
        SpoolLock(tmp_path / "spool" / f"{file.name}.lock")


def test_the_file_of_a_dead_owner_is_adopted_by_one(tmp_path: Path) -> None:
    """What a killed process had committed is found, once, with its watermark."""
    path = orphan(tmp_path)
    [lock] = orphaned_locks(tmp_path, "here")
    assert list(orphaned_locks(tmp_path, "here")) == []
    adopted = adopt(lock)
    assert adopted
    assert (lock.path, lock.committed, bodies(adopted)) == (path, 3, [b"0", b"1", b"2"])


def test_what_is_for_one_backend_is_not_adopted_for_another(tmp_path: Path) -> None:
    """Two services may share a folder though their backends differ."""
    orphan(tmp_path, destination="there")
    assert list(orphaned_locks(tmp_path, "here")) == []


def test_an_empty_file_goes_and_any_other_stays(tmp_path: Path) -> None:
    """A clean end leaves nothing behind but what must still be sent."""
    empty, full = SpoolStore.create(tmp_path, "here"), SpoolStore.create(tmp_path, "here")
    fill(full, b"waits")
    empty.close()
    full.close()
    assert {path.stem for path in tmp_path.iterdir()} == {full.name}
    assert len(list(orphaned_locks(tmp_path, "here"))) == 1


def test_a_file_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    """It is kept for a person, and never tried again."""
    lock = orphan(tmp_path)
    database = lock.with_suffix(".db")
    Path(f"{database}-wal").unlink()
    database.write_bytes(b"this is not a database" * 1000)
    [lock] = orphaned_locks(tmp_path, "here")
    assert adopt(lock) is None
    assert database.with_suffix(".corrupt").read_bytes().startswith(b"this is not")
    assert not list(orphaned_locks(tmp_path, "here"))


DAMAGE = {
    "no table held, as before sampling at the end": "DROP TABLE held; DROP TABLE verdict",
    "no table dead": "DROP TABLE dead",
    "a body that is text": "UPDATE waiting SET body = 'zzz' WHERE seq = 2",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_older_or_damaged_file_is_adopted_for_what_is_left_of_it(tmp_path: Path, damage: str) -> None:
    """A missing table is made anew, and a row that cannot be sent goes to the dead letters."""
    database = orphan(tmp_path).with_suffix(".db")
    with closing(sqlite3.connect(database)) as db:
        db.executescript(DAMAGE[damage])
        db.commit()

    [lock] = orphaned_locks(tmp_path, "here")
    adopted = adopt(lock)

    assert adopted
    whole = [b"0", b"2"] if "body" in damage else [b"0", b"1", b"2"]
    assert bodies(adopted) == whole
    assert adopted.held == (0, 0)
    assert [letter.body for letter in adopted.dead_letters()] == ([b"zzz"] if "body" in damage else [])
    adopted.close()


def test_damaged_marks_have_the_file_sent_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mark that SQLite cannot count to is damage: rather twice than lost."""
    lock = orphan(tmp_path)
    lock.write_bytes(b"\xff" * 16)

    assert inspect(lock.with_suffix(".db")) is not None
    [lock] = orphaned_locks(tmp_path, "here")
    adopted = adopt(lock)

    assert adopted
    assert bodies(adopted) == [b"0", b"1", b"2"]
    assert "are damaged" in caplog.text
    adopted.close()


def test_a_torn_tail_costs_what_was_not_committed(tmp_path: Path) -> None:
    """Wherever a write broke off, the rows before it are whole."""
    lock = orphan(tmp_path / "dead", count=20)
    wal = Path(f"{lock.with_suffix('.db')}-wal")
    size = wal.stat().st_size
    seen = set()
    for cut in range(0, size, size // 40):
        copy = tmp_path / str(cut)
        shutil.copytree(lock.parent, copy)
        os.truncate(copy / wal.name, size - cut)
        (copy / wal.name.replace("-wal", "-shm")).unlink()
        [torn] = orphaned_locks(copy, "here")
        adopted = adopt(torn)
        found = bodies(adopted) if adopted else []
        assert found == [b"%d" % n for n in range(len(found))]
        seen.add(len(found))
    assert {20, 10} <= seen


def test_the_oldest_go_first_when_there_are_too_many_bytes(file: SpoolStore) -> None:
    """The file is bounded, and says how many rows went."""
    for n in range(10):
        fill(file, b"%d" % n * 100)
    assert file.drop_excess(500) == 6
    assert [body[:1] for body in bodies(file)] == [b"6", b"7", b"8", b"9"]
    assert file.size == 400


def test_what_is_too_old_goes(file: SpoolStore) -> None:
    """Rows and dead letters that nobody could send in time are dropped."""
    fill(file, b"old", at=NOW)
    fill(file, b"young", at=NOW + 100)
    file.add_dead_letters([DeadLetter("x", SPAN, NOW, "400", b"old")])
    assert file.drop_old(NOW + 50) == 1
    assert (bodies(file), file.dead_letters()) == ([b"young"], [])


def test_a_dead_letter_leaves_its_stub_in_the_queue(file: SpoolStore) -> None:
    """The stub goes where the row stood; the row is kept with the reason."""
    fill(file, b"first", b"poison", b"last")
    file.replace_with_stub(file.take(SPAN, ALL, ALL)[1], "400 bad", b"stub")
    assert bodies(file) == [b"first", b"stub", b"last"]
    assert [(letter.reason, letter.body) for letter in file.dead_letters()] == [("400 bad", b"poison")]
    assert file.size == len(b"firststublast")


def test_without_a_stub_the_row_goes(file: SpoolStore) -> None:
    """A stub that is refused has none of its own."""
    fill(file, b"poison", b"last")
    file.replace_with_stub(file.take(SPAN, ALL, 1)[0], "400 bad", None)
    assert (bodies(file), file.rows) == ([b"last"], 1)


def test_dead_letters_move_once(file: SpoolStore) -> None:
    """Taking over the same letters twice keeps one of each."""
    letter = DeadLetter("x-1", SPAN, NOW, "413", b"poison")
    file.add_dead_letters([letter])
    file.add_dead_letters([letter])
    assert file.dead_letters() == [letter]
    file.remove_dead_letters([letter])
    assert file.dead_letters() == []


def test_a_folder_is_surveyed_whoever_owns_its_files(tmp_path: Path) -> None:
    """The figures are of all files, living or dead."""
    orphan(tmp_path)
    ours = SpoolStore.create(tmp_path, "here")
    fill(ours, b"abcd", at=time.time())
    folder = survey(tmp_path, [ours, SpoolStore.memory()])
    assert (folder.files, folder.waiting.rows, folder.waiting.size) == (2, 4, 7)
    assert folder.waiting.oldest_s > 1000


def test_what_nobody_sends_is_not_kept_for_ever(tmp_path: Path) -> None:
    """Old files of dead processes for other backends go, with what was said in them; all others stay."""
    old, new, ours = orphan(tmp_path, destination="there"), orphan(tmp_path, destination="there"), orphan(tmp_path)
    living = SpoolStore.create(tmp_path, "there")
    fill(living, b"abcd")
    for lock in (old, ours, tmp_path / f"{living.name}.lock"):
        for path in tmp_path.glob(f"{lock.stem}.db*"):
            os.utime(path, (NOW, NOW))

    assert drop_foreign(tmp_path, "here", NOW + 1) == 3
    assert {path.stem for path in tmp_path.glob("*.db")} == {new.stem, ours.stem, living.name}
    assert not list(tmp_path.glob(f"{old.stem}*"))
    assert drop_foreign(tmp_path, "here", NOW + 1) == 0


def test_what_was_set_aside_is_not_kept_for_ever(tmp_path: Path) -> None:
    """A person has as long to look into it as spans have to be sent, from when it was set aside."""
    lock = orphan(tmp_path)
    os.utime(lock.with_suffix(".db"), (NOW, NOW))
    [lock] = orphaned_locks(tmp_path, "here")
    quarantine(lock)

    assert drop_corrupt(tmp_path, time.time() - 60) == 0
    assert drop_corrupt(tmp_path, time.time() + 60) == 1
    assert not list(tmp_path.glob("*.corrupt*"))


def test_memory_is_a_spool_like_any_other() -> None:
    """Without a disk the same queue lives in memory."""
    memory = SpoolStore.memory()
    fill(memory, b"aa", b"bb")
    memory.mark_accepted(memory.take(SPAN, ALL, 1))
    assert bodies(memory) == [b"bb"]
    memory.close()
