"""Threads that nobody uses any more are removed with everything that belongs to them, and no others."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app import prune
from app.client import AgentClient
from app.database.connect import open_database
from app.database.thread_locks import locked
from app.database.thread_store import runs
from app.files.connect import connect_files
from app.retention import Retention
from app.threads import Threads
from tests import processes
from tests.app.storage import Storage
from tests.flawed_agents import TABLE
from tests.processes import until

Prune = Callable[..., tuple[int, str]]

TABLES = (
    "threads",
    "runs",
    "run_outcomes",
    "run_votes",
    "run_questions",
    "run_messages",
    "files",
    "background_runs",
    "background_attempts",
    "background_events",
    "background_answers",
    "turn_events",
    "checkpoints",
)


@pytest.fixture
def run_prune(storage: Storage) -> Prune:
    """The command on this storage: its exit code and what it says."""

    def run(*arguments: str) -> tuple[int, str]:
        return processes.run("app", "prune", *arguments, env=processes.bare() | storage.variables, cwd=storage.folder)

    return run


def age(storage: Storage, thread_id: str, days: float = 40) -> None:
    """Let everything on the thread be so old."""
    moment = datetime.now(UTC) - timedelta(days=days)
    where = f"where thread_id = '{thread_id}'"
    for table in ("threads", "runs", "files"):
        storage.rows(f"update {table} set created = '{moment:%Y-%m-%d %H:%M:%S.%f}' {where}")
    storage.rows(f"update runs set ended = created {where} and ended is not null")
    storage.rows(f"update background_runs set created = {moment.timestamp()} {where}")
    storage.rows(f"update background_runs set ended = created {where} and ended is not null")


def thread_ids(storage: Storage) -> set[str]:
    return {thread_id for (thread_id,) in storage.rows("select thread_id from threads")}


def workflows(storage: Storage) -> int:
    if storage.url:
        return storage.count("dbos.workflow_status")
    with closing(sqlite3.connect(storage.folder / "engine.db")) as connection:
        return connection.execute("select count(*) from workflow_status").fetchone()[0]


def use_everything(url: str, storage: Storage, thread_id: str) -> None:
    """A thread with all that a thread can have."""
    client = AgentClient(url, "chatbot", user_id="ada")
    answer = client.invoke("What is 12*34?", thread_id=thread_id)
    client.feedback(str(answer.run_id), "stars", 5)
    client.upload(thread_id, b"hello", "a.txt")
    list(client.follow(client.submit("What is 1+1?", thread_id=thread_id).run_id))
    list(client.stream("What is 2+2?", thread_id=thread_id, on_disconnect="continue"))
    (storage.folder / "python" / thread_id).mkdir(parents=True)
    client.agent = "interrupt"
    client.invoke("Book a table for 4 at 20:00", thread_id=thread_id)


def test_nothing_is_left_of_an_unused_thread(storage: Storage, run_prune: Prune) -> None:
    """Its messages, runs, votes, questions and files go, also where it waits for an answer; a dry run says how much."""
    pytest.importorskip("dbos", reason="background runs need DBOS")
    with storage.service() as url:
        use_everything(url, storage, "t-1")
        until(lambda: storage.count("checkpoints") == 1)
    counts = {table: storage.count(table) for table in TABLES}
    assert 0 not in counts.values()
    assert workflows(storage) == 1

    assert run_prune("--days", "30")[0] == 0
    assert {table: storage.count(table) for table in TABLES} == counts, "it was used today"
    age(storage, "t-1")
    status, said = run_prune("--days", "30", "--dry-run")
    assert (status, "1 threads with 4 turns and 1 files" in said, "Nothing was removed" in said) == (0, True, True)
    assert {table: storage.count(table) for table in TABLES} == counts

    assert run_prune("--days", "30") == (0, said_of_removal(1))
    assert {table: storage.count(table) for table in TABLES} == dict.fromkeys(TABLES, 0)
    assert workflows(storage) == 0
    assert [list((storage.folder / name).iterdir()) for name in ("files", "python")] == [[], []]


def said_of_removal(threads: int) -> str:
    return f"Removed {threads} threads.\nRemoved checkpoints of ended turns in 0 threads, 0.0 MB.\n"


def test_a_thread_that_is_used_stays(storage: Storage, run_prune: Prune) -> None:
    """Whether by a turn that is running, however long, by an upload, or by a turn within the time."""
    with ExitStack() as stack:
        url = stack.enter_context(storage.service(TABLE))
        client = AgentClient(url, "chatbot")
        for thread_id in ("unused", "uploaded", "asked"):
            client.invoke("Hello", thread_id=thread_id)
        turn = AgentClient(url, "slow").stream("What is 12*34?", thread_id="running")
        next(turn)
        for thread_id in ("unused", "uploaded", "asked", "running"):
            age(storage, thread_id)
        client.upload("uploaded", b"hello", "a.txt")
        client.invoke("Hello", thread_id="asked")
        if storage.url is None:
            # SQLite's files serve one process, and the turn ends with it.
            stack.close()
        run_prune("--days", "30")

        assert thread_ids(storage) == {"uploaded", "asked", "running"}
        if storage.url:
            client.cancel(client.get_history("running").turns[-1].run_id)
            assert list(turn)
            assert client.invoke("Hello again", thread_id="running").content


def test_the_service_does_it_by_itself(storage: Storage) -> None:
    """RETENTION_DAYS removes them while the service runs, with files that another machine's code has left here."""
    with storage.service() as url:
        for thread_id in ("old", "new"):
            AgentClient(url, "chatbot").invoke("Hello", thread_id=thread_id)
    age(storage, "old")
    with storage.service():
        assert thread_ids(storage) == {"old", "new"}, "off by default"
    for thread_id in ("removed-elsewhere", "new"):
        (storage.folder / "python" / thread_id).mkdir(parents=True)

    with storage.service(RETENTION_DAYS=30) as url:
        until(lambda: thread_ids(storage) == {"new"})
        until(lambda: [folder.name for folder in (storage.folder / "python").iterdir()] == ["new"])
        assert AgentClient(url, "chatbot").get_history("new").messages


async def test_one_process_at_a_time(postgres_storage: Storage) -> None:
    """While one process of a database removes threads, no other does."""
    storage = postgres_storage
    async with open_database(storage.settings) as first, open_database(storage.settings) as second:
        files = await connect_files(storage.settings, second.engine)
        threads = Threads(second.engine, files, second.checkpoints, storage.settings)
        retention = Retention(second, threads, lambda thread_id: locked(second.thread_locks, thread_id))
        async with locked(first.thread_locks, "-retention"):
            assert await retention.remove_unused(datetime.now(UTC)) is None


async def test_a_thread_that_is_used_meanwhile_stays(storage: Storage) -> None:
    """A turn between the look at the list and the lock of the thread keeps it."""
    with storage.service() as url:
        AgentClient(url, "chatbot").invoke("Hello", thread_id="t-1")
    age(storage, "t-1")
    async with open_database(storage.settings) as database:

        @asynccontextmanager
        async def used_before(thread_id: str) -> AsyncIterator[bool]:
            async with database.engine.begin() as connection:
                await connection.execute(update(runs).values(ended=datetime.now(UTC)))
            yield True

        files = await connect_files(storage.settings, database.engine)
        threads = Threads(database.engine, files, database.checkpoints, storage.settings)
        retention = Retention(database, threads, used_before)
        assert await retention.remove_unused(datetime.now(UTC) - timedelta(days=30)) == 0
    assert thread_ids(storage) == {"t-1"}


def test_checkpoints_of_ended_turns_are_removed_by_hand(storage: Storage, run_prune: Prune) -> None:
    """Without days, no thread goes; what earlier turns have left does, as a dry run says before."""
    with storage.service() as url:
        AgentClient(url, "chatbot").invoke("Hello", thread_id="t-1")
        until(lambda: storage.count("checkpoints") == 1)
    column = "checkpoint_id"
    others = "thread_id, checkpoint_ns, parent_checkpoint_id, type, checkpoint, metadata"
    storage.rows(f"insert into checkpoints ({column}, {others}) select '0', {others} from checkpoints")
    age(storage, "t-1")
    status, said = run_prune("--dry-run")
    assert (status, "No thread would be removed" in said, "in 1 other threads" in said) == (0, True, True)
    assert storage.count("checkpoints") == 2

    assert run_prune()[0] == 0
    assert storage.count("checkpoints") == 1
    assert thread_ids(storage) == {"t-1"}


@pytest.mark.parametrize("days", ["0", "-1", "some", "1e99", "nan"])
def test_bad_days_are_refused(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a sentence, before anything is removed."""
    with pytest.raises(SystemExit, match="2"):
        prune.main(["--days", days])
    assert "name a number of days above 0" in capsys.readouterr().err


def test_an_unusable_database_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As at the start of the service."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    assert prune.main(["--dry-run"]) == 2
    assert capsys.readouterr().err.startswith("DATABASE_URL cannot be used")
