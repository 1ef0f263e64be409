"""Files of other processes in the spool's folder, in every state that one can be found in: delivery goes on."""

import logging
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry.delivery.lock import SpoolLock
from telemetry.delivery.store import SPAN, SpoolStore
from telemetry.delivery.writer import destination
from telemetry.stats import _spool as spool_stats
from telemetry.testing.receiver import Receiver
from tests.processes import until
from tests.telemetry.spooling import encode, hasten, settings, spooling

# The schemas of former releases, which wrote no version.
WAITING = "CREATE TABLE waiting (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL);"
DEAD = """CREATE TABLE dead (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL
);"""
HELD = """CREATE TABLE held (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, trace TEXT NOT NULL, error INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX held_trace ON held (trace, error);
CREATE TABLE verdict (trace TEXT PRIMARY KEY, kept INTEGER NOT NULL, at REAL NOT NULL);"""
FORMER = {"before sampling at the end": WAITING + DEAD, "before versions": WAITING + DEAD + HELD}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


@pytest.fixture
def bodies() -> list[bytes]:
    """Three spans as they are written."""
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for n in range(3):
        provider.get_tracer("test").start_span(f"old-{n}", attributes={"text": "x" * 5000}).end()
    return encode(exporter.get_finished_spans())


def orphan(folder: Path, endpoint: str, bodies: list[bytes]) -> Path:
    """The database that a process with these spans has left."""
    store = SpoolStore.create(folder, destination(settings(endpoint, folder)))
    store.append(SPAN, [(1e10, body) for body in bodies])
    store.close()
    return folder / f"{store.name}.db"


def script(statements: str) -> Callable[[Path], None]:
    def damage(database: Path) -> None:
        with closing(sqlite3.connect(database)) as db:
            db.executescript(statements)

    return damage


def truncate(share: float) -> Callable[[Path], None]:
    return lambda database: os.truncate(database, int(database.stat().st_size * share))


def flip(seed: int) -> Callable[[Path], None]:
    def damage(database: Path) -> None:
        chance, raw = random.Random(seed), bytearray(database.read_bytes())
        for _ in range(200):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        database.write_bytes(raw)

    return damage


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def of_lock(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda database: damage(database.with_suffix(".lock"))


def link_elsewhere(path: Path) -> None:
    path.symlink_to(path.parent.parent / "elsewhere")


LOOSE = "ALTER TABLE waiting RENAME TO w; CREATE TABLE waiting (seq INTEGER PRIMARY KEY, kind, at, body);"
REFILLED = f"{LOOSE} INSERT INTO waiting SELECT * FROM w; DROP TABLE w;"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "no table held": script("DROP TABLE held; DROP TABLE verdict"),
    "no table dead": script("DROP TABLE dead"),
    "no table waiting": script("DROP TABLE waiting"),
    "text rows": script("UPDATE waiting SET body = 'zzz'"),
    "one text row": script("UPDATE waiting SET body = 'zzz' WHERE seq = 2"),
    "null rows": script(f"{REFILLED} UPDATE waiting SET body = NULL, kind = NULL"),
    "times that are text": script(f"{REFILLED} UPDATE waiting SET at = 'yesterday'"),
    "times that are null": script(f"{REFILLED} UPDATE waiting SET at = NULL"),
    "held rows of text": script("INSERT INTO held VALUES (1, 'span', 'now', 't', 0, 'zzz')"),
    "renamed column": script("ALTER TABLE waiting RENAME COLUMN body TO content"),
    "additional column": script("ALTER TABLE waiting ADD COLUMN more TEXT"),
    "other tables altogether": script("DROP TABLE waiting; CREATE TABLE waiting (a, b)"),
    "view instead of a table": script("ALTER TABLE waiting RENAME TO w; CREATE VIEW waiting AS SELECT * FROM w"),
    "many empty rows": script(
        "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)"
        " INSERT INTO waiting SELECT i, 'span', 1e10, x'' FROM n"
    ),
    "future version": script("PRAGMA user_version = 99"),
    "negative version": script("PRAGMA user_version = -7"),
    "huge row": script("UPDATE waiting SET body = zeroblob(8000000) WHERE seq = 2"),
    "truncated": truncate(0.5),
    "truncated in its header": truncate(0.001),
    "zero bytes": truncate(0),
    "not a database": lambda database: database.write_bytes(b"this is not a database " * 1000),
    "bits flipped": flip(1),
    "other bits flipped": flip(2),
    "directory": instead(Path.mkdir),
    "symlink": instead(link_elsewhere),
    "pipe": instead(os.mkfifo),
    "log of another program": lambda database: Path(f"{database}-wal").write_bytes(b"\x00\xff" * 40_000),
    "log is a directory": lambda database: (
        Path(f"{database}-wal").unlink(missing_ok=True),
        Path(f"{database}-wal").mkdir(),
    ),
    "missing database": Path.unlink,
    "missing lock": of_lock(Path.unlink),
    "empty lock": of_lock(lambda lock: os.truncate(lock, 0)),
    "lock of ff": of_lock(lambda lock: lock.write_bytes(b"\xff" * 16)),
    "lock ahead of its rows": of_lock(lambda lock: lock.write_bytes(b"\x03" + b"\0" * 7 + b"\xff" * 4 + b"\0" * 4)),
    "lock of a gigabyte": of_lock(lambda lock: os.truncate(lock, 1 << 30)),
    "lock is a directory": of_lock(instead(Path.mkdir)),
    "lock is a pipe": of_lock(instead(os.mkfifo)),
    "lock is a symlink": of_lock(instead(link_elsewhere)),
}
# What cannot be opened stays where it is: another release may read it, a person may put it right.
STAYS = {
    "future version",
    "log is a directory",
    "directory",
    "symlink",
    "pipe",
    "lock is a directory",
    "lock is a pipe",
    "lock is a symlink",
}
# What is whole but for its frame arrives.
ARRIVES = {
    "no table held",
    "no table dead",
    "times that are text",
    "times that are null",
    "held rows of text",
    "negative version",
    "missing lock",
    "empty lock",
    "lock of ff",
    "lock ahead of its rows",
    "lock of a gigabyte",
    "log of another program",
}


def names(receiver: Receiver) -> list[str]:
    return [span.name for span in receiver.spans]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_does_not_hold_up_delivery(
    receiver: Receiver, tmp_path: Path, bodies: list[bytes], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Own spans arrive; the file is delivered, set aside, or left: counted, with one log line."""
    caplog.set_level(logging.INFO)
    database = orphan(tmp_path / "spool", receiver.endpoint, bodies)
    DAMAGES[damage](database)

    with spooling(receiver, tmp_path / "spool") as (tracer, writer):
        for n in range(5):
            tracer.start_span(f"own-{n}").end()
            receiver.wait(lambda found, n=n: f"own-{n}" in [span.name for span in found])
        if damage in STAYS:
            until(lambda: spool_stats(writer)["unusable"] == 1)
            until(lambda: writer.spool._rounds > 3)
            assert len([r for r in caplog.records if "cannot be used" in r.message]) == 1
        else:
            until(lambda: not database.exists())
            figures = spool_stats(writer)
            assert figures["taken_over"] + figures["set_aside"] == 1
            assert figures["unusable"] == 0
        if damage in ARRIVES:
            receiver.wait(lambda found: {f"old-{n}" for n in range(3)} <= {span.name for span in found})
    assert len([name for name in names(receiver) if name.startswith("own")]) == 5


def test_many_damaged_files_at_once(receiver: Receiver, tmp_path: Path, bodies: list[bytes]) -> None:
    """Beside all of them together a living process delivers its spans, and what can be read of theirs."""
    for damage in DAMAGES:
        DAMAGES[damage](orphan(tmp_path / "spool", receiver.endpoint, bodies))

    with spooling(receiver, tmp_path / "spool") as (tracer, writer):
        for n in range(40):
            tracer.start_span(f"own-{n}").end()
        receiver.wait(lambda found: {f"own-{n}" for n in range(40)} <= {span.name for span in found})
        until(lambda: spool_stats(writer)["unusable"] == len(STAYS))
        until(lambda: not writer.spool._adopted)
        figures = spool_stats(writer)
        assert figures["taken_over"] + figures["set_aside"] == len(DAMAGES) - len(STAYS)
    assert sum(name.startswith("own") for name in names(receiver)) == 40
    assert sum(name == "old-0" for name in names(receiver)) >= len(ARRIVES)


@pytest.mark.parametrize("release", FORMER)
def test_a_file_of_a_former_release_is_upgraded(
    receiver: Receiver, tmp_path: Path, bodies: list[bytes], release: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What an earlier release left is delivered, its dead letters are kept, and that it was upgraded is logged once."""
    caplog.set_level(logging.INFO)
    folder = tmp_path / "spool"
    folder.mkdir()
    name = f"{destination(settings(receiver.endpoint, folder))}-1-abcd"
    with closing(sqlite3.connect(folder / f"{name}.db")) as db:
        db.executescript(f"PRAGMA journal_mode = WAL; {FORMER[release]}")
        db.executemany("INSERT INTO waiting VALUES (?,?,?,?)", [(n + 1, SPAN, 1e10, b) for n, b in enumerate(bodies)])
        db.execute("INSERT INTO dead VALUES ('x-1', 'span', 1e10, '400', x'00')")
        db.commit()
    (folder / f"{name}.lock").write_bytes((3).to_bytes(8, "little") + (1).to_bytes(8, "little"))

    with spooling(receiver, folder) as (_, writer):
        writer.start()
        until(lambda: not (folder / f"{name}.db").exists())
        assert writer.spool.file
        assert [letter.id for letter in writer.spool.file.dead_letters()] == ["x-1"]
    assert names(receiver) == ["old-1", "old-2"]
    assert len([r for r in caplog.records if "earlier release" in r.message]) == 1


def test_a_new_file_says_its_version(tmp_path: Path) -> None:
    """A later release knows what it has before it."""
    store = SpoolStore.create(tmp_path, "here")
    assert store._write.execute("PRAGMA user_version").fetchone() == (2,)
    store.close()


def test_a_file_that_somebody_has_locked_is_adopted_once_it_is_free(
    receiver: Receiver, tmp_path: Path, bodies: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is being made of a file holds up nobody's spans."""
    monkeypatch.setattr("telemetry.delivery.spool.RETRY_ADOPTION_S", 0.1)
    database = orphan(tmp_path / "spool", receiver.endpoint, bodies)
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        with spooling(receiver, tmp_path / "spool") as (tracer, writer):
            tracer.start_span("own").end()
            receiver.wait(lambda found: "own" in [span.name for span in found])
            until(lambda: writer.spool.unusable == 1)
            db.execute("COMMIT")
            db.close()
            receiver.wait(4)
            until(lambda: writer.spool.unusable == 0)
    assert sorted(names(receiver)) == ["old-0", "old-1", "old-2", "own"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_stays(receiver: Receiver, tmp_path: Path, bodies: list[bytes]) -> None:
    """Another user's file is that user's."""
    database = orphan(tmp_path / "spool", receiver.endpoint, bodies)
    database.chmod(0)
    with spooling(receiver, tmp_path / "spool") as (tracer, writer):
        tracer.start_span("own").end()
        receiver.wait(1)
        until(lambda: writer.spool.unusable == 1)


def test_a_living_process_whose_lock_was_removed_keeps_its_file(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody takes over a file that is open elsewhere, whatever became of its lock; its owner delivers it."""
    receiver.answer = 503
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("mine").end()
        until(lambda: writer.backend.is_down)
        [lock] = tmp_path.glob("*.lock")
        lock.unlink()
        with spooling(receiver, tmp_path) as (tracer, other):
            tracer.start_span("other").end()
            until(lambda: other.spool.unusable == 1)
            for _ in range(3):
                other.spool.maintain()
            assert other.spool.unusable == 1
            receiver.answer = 200
            receiver.wait(2)
    assert sorted(names(receiver)) == ["mine", "other"]
    # Once for each of the two that look at the folder.
    assert caplog.text.count("cannot be used (database is locked)") <= 2


@pytest.mark.parametrize("size", [0, 7, 15])
def test_a_living_process_outlives_the_truncation_of_its_lock(receiver: Receiver, tmp_path: Path, size: int) -> None:
    """Whoever truncates the lock of a living process kills nobody, and its marks come back."""
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("before").end()
        receiver.wait(1)
        [lock] = tmp_path.glob("*.lock")
        os.truncate(lock, size)
        tracer.start_span("after").end()
        receiver.wait(2)
        until(lambda: lock.stat().st_size == 16)
        assert writer.spool.file
        assert writer.spool.file.lock.committed == 2


def test_a_row_that_cannot_be_sent_waits_alone(receiver: Receiver, tmp_path: Path) -> None:
    """An error of one file, whatever it is, holds up no other."""
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("first").end()
        receiver.wait(1)
        with suppress(sqlite3.Error):
            writer.spool.memory._write.execute("INSERT INTO waiting VALUES (1, 'span', 1.0, 'text')")
        tracer.start_span("second").end()
        receiver.wait(2)
    assert names(receiver) == ["first", "second"]


def test_marks_that_were_padded_are_none(tmp_path: Path) -> None:
    """A lock of fewer bytes than the marks counts as one without."""
    (tmp_path / "a.lock").write_bytes(b"\x01" * 3)
    lock = SpoolLock(tmp_path / "a.lock")
    assert (lock.committed, lock.accepted) == (0x010101, 0)
    lock.release()
