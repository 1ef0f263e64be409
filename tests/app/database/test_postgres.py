"""Many processes share one Postgres: threads, runs, checkpoints, and who answers on which thread."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.client import AgentClient, AgentError, Refused
from app.database.connect import open_database
from app.database.postgres import AdvisoryLocks
from app.database.thread_store import Thread
from app.runs.store import create_tables
from app.schema import EndEvent, InterruptEvent, MessageEvent, RunEvent
from app.settings import ServiceSettings
from telemetry.testing import Recorded
from tests.flawed_agents import TABLE
from tests.postgres import postgres
from tests.processes import free_port, start, until
from tests.service import service

SUM = "What is 12*34?"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def database(server: str) -> str:
    """An empty database of this test's own."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("drop database if exists service with (force)")
        connection.execute("create database service")
    return server.replace("/postgres", "/service")


@pytest.fixture
def workers(spans: Recorded, database: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two services on the same database."""
    with (
        service(tmp_path / "1", TABLE, DATABASE_URL=database) as first,
        service(tmp_path / "2", TABLE, DATABASE_URL=database) as second,
    ):
        yield first, second


async def test_a_session_that_stands_still_lets_go(database: str) -> None:
    """Whoever is stopped within a transaction keeps its rows from others for some seconds only; own options stay."""
    asked = f"{database}?options=-c%20search_path%3Dpublic%20-c%20lock_timeout%3D60s"
    settings = ServiceSettings.model_validate({"DATABASE_URL": asked})
    async with open_database(settings) as opened, opened.engine.connect() as stopped:
        await stopped.execute(text("lock table threads"))
        async with opened.engine.begin() as other:
            await other.execute(text("lock table threads"))
            assert (await other.execute(text("show search_path"))).scalar() == "public"
        with pytest.raises(DBAPIError):
            await stopped.execute(text("select 1"))


async def test_a_ping_that_outlives_the_locks_leaves_no_session(database: str) -> None:
    """A check that is under way while the locks are closed fails, and the server keeps no connection of it."""
    engine = create_async_engine(database.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    locks = AdvisoryLocks(engine)
    checking = asyncio.ensure_future(locks.check())
    await locks.close()
    with pytest.raises(psycopg.InterfaceError):
        await checking
    with psycopg.connect(database) as connection:
        left = connection.execute(
            "select pid from pg_stat_activity where datname = 'service' and pid <> %s", [connection.info.backend_pid]
        )
        assert left.fetchall() == []


def test_what_postgres_cannot_keep_is_refused(workers: tuple[str, str]) -> None:
    """A NUL character, wherever it stands, is a 422 with a sentence, and nothing of the request is kept."""
    with httpx.Client(base_url=workers[0], timeout=60) as client:
        run_id = client.post("/invoke", json={"message": "Hello", "thread_id": "t-1"}).json()["run_id"]
        refused = [
            client.post("/invoke", json={"message": "a\0b", "thread_id": "t-2"}),
            client.post("/bg-task/runs", json={"message": "a\0b", "thread_id": "t-2"}),
            client.post("/feedback", json={"run_id": run_id, "key": "stars", "score": 1, "comment": "a\0b"}),
            client.post("/feedback", json={"run_id": "a\0b", "key": "stars", "score": 1}),
            client.get("/runs/a%00b"),
            client.post("/runs/a%00b/cancel"),
            client.get("/files/a%00b"),
        ]

        assert [(each.status_code, "NUL" in each.json()["detail"]) for each in refused] == [(422, True)] * 7
        assert [thread["thread_id"] for thread in client.get("/threads").json()["threads"]] == ["t-1"]
        assert not client.post("/history", json={"thread_id": "t-1"}).json()["turns"][0]["votes"]


def test_another_worker_knows_the_thread(workers: tuple[str, str], tmp_path: Path) -> None:
    """What was said to one is known to the other, with the run and the trace of each message."""
    first, second = (AgentClient(url) for url in workers)
    said = first.invoke("My name is Ada.", thread_id="t-1")
    answer = second.invoke("What is my name?", thread_id="t-1")
    history = first.get_history("t-1").messages

    assert "Ada" in answer.content
    assert [message.trace_id for message in history] == [said.trace_id] * 2 + [answer.trace_id] * 2
    assert not list(tmp_path.rglob("*.db"))


def test_another_worker_resumes(workers: tuple[str, str], database: str, spans: Recorded) -> None:
    """The checkpoint holds trace, run and session; the other worker's trace is linked to the first."""
    asked = AgentClient(workers[0], "interrupt").invoke("Book a table for 4 at 20:00", thread_id="t-1")
    with psycopg.connect(database) as connection:
        saved = connection.execute("select metadata from checkpoints order by checkpoint_id desc limit 1").fetchone()
    assert saved
    assert {key: saved[0][key] for key in ("trace_id", "run_id", "session_id", "agent_name")} == {
        "trace_id": asked.trace_id,
        "run_id": asked.run_id,
        "session_id": "t-1",
        "agent_name": "interrupt",
    }

    answer = AgentClient(workers[1], "interrupt").invoke("yes", thread_id="t-1")

    assert "Booked a table for 4" in answer.content
    links = [f"{link.context.trace_id:032x}" for span in spans.settled() for link in span.links]
    assert links == [asked.trace_id]
    assert answer.trace_id != asked.trace_id


def test_a_busy_thread_is_busy_everywhere(workers: tuple[str, str], spans: Recorded) -> None:
    """While one worker answers on a thread, every other refuses it with a 409; afterwards none does."""
    first, second = AgentClient(workers[0], "slow"), AgentClient(workers[1], "slow")
    events = first.stream(SUM, thread_id="t-1")
    run = next(events)
    assert isinstance(run, RunEvent)
    with pytest.raises(Refused, match="is already answering") as refused:
        second.invoke(SUM, thread_id="t-1")
    assert refused.value.status == 409
    first.cancel(run.run_id)
    end = list(events)[-1]
    assert isinstance(end, EndEvent)
    assert end.status == "cancelled"
    spans.settled()

    assert AgentClient(workers[1], "chatbot").invoke("Hello", thread_id="t-1").content


def test_any_worker_cancels_the_turn(workers: tuple[str, str], spans: Recorded) -> None:
    """A turn ends as cancelled, as told in its stream and its history, though another worker than its own was asked."""
    events = AgentClient(workers[0], "slow").stream(SUM, thread_id="t-1")
    run = next(events)
    assert isinstance(run, RunEvent)
    with httpx.Client(base_url=workers[1], timeout=60) as second:
        asked, again = (second.post(f"/runs/{run.run_id}/cancel").json()["status"] for _ in range(2))
        during = second.get("/threads/t-1").json()["status"]
        end = list(events)[-1]
        until(lambda: second.get("/threads/t-1").json()["status"] == "cancelled")
        after = second.post(f"/runs/{run.run_id}/cancel").json()["status"]

    assert isinstance(end, EndEvent)
    assert (end.status, asked, after) == ("cancelled", "cancelling", "cancelled")
    assert again in ("cancelling", "cancelled")
    assert during in ("running", "cancelled")


def test_a_dead_process_lets_go_of_its_threads(database: str, spans: Recorded, tmp_path: Path) -> None:
    """After a SIGKILL in the middle of a turn another worker takes the thread over."""
    address = f"http://127.0.0.1:{free_port()}"
    env = {"PORT": address.rsplit(":", 1)[1], "DATA_DIR": str(tmp_path), "DATABASE_URL": database}
    argv = [sys.executable, "-m", "tests.flawed_agents"]
    with start(argv, env, f"{address}/health") as process, suppress(AgentError):
        for event in AgentClient(address, "slow").stream(SUM, thread_id="t-1"):
            if isinstance(event, MessageEvent) and event.content.tool_calls:
                process.popen.kill()

    with service(tmp_path, TABLE, DATABASE_URL=database) as other:
        client = AgentClient(other, "chatbot")
        answer = until(lambda: attempt(client))
        assert [message.type for message in client.get_history("t-1").messages][-2:] == ["human", "ai"]
    assert answer


def attempt(client: AgentClient) -> str | None:
    try:
        return client.invoke("Hello again", thread_id="t-1").content
    except Refused:
        return None


def test_lost_connections_are_replaced(workers: tuple[str, str], server: str, spans: Recorded) -> None:
    """After the server has dropped every connection the next turn works, and so does the next refusal."""
    client = AgentClient(workers[0])
    client.invoke("My name is Ada.", thread_id="t-1")
    with psycopg.connect(server, autocommit=True) as connection:
        # With a time, it returns when they are gone.
        connection.execute("select pg_terminate_backend(pid, 60000) from pg_stat_activity where datname = 'service'")

    assert "Ada" in client.invoke("What is my name?", thread_id="t-1").content
    events = AgentClient(workers[0], "slow").stream(SUM, thread_id="t-1")
    next(events)
    with pytest.raises(Refused, match="is already answering"):
        AgentClient(workers[1], "slow").invoke(SUM, thread_id="t-1")
    events.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator
    spans.settled()


async def test_workers_may_start_at_once(database: str, tmp_path: Path) -> None:
    """They make their tables in an empty database together, and each can use them."""
    settings = ServiceSettings.model_validate({"DATA_DIR": tmp_path, "DATABASE_URL": database})

    async def work(number: int) -> str:
        async with open_database(settings) as opened:
            await create_tables(opened.engine)
            thread = await opened.store.get_or_create(Thread(f"t-{number}", "ada", "chatbot"))
            return thread.thread_id

    assert await asyncio.gather(*(work(number) for number in range(4))) == ["t-0", "t-1", "t-2", "t-3"]


def test_interrupt_events_name_the_question(workers: tuple[str, str]) -> None:
    """The event has the question's id and value, and the turn waits."""
    *_, asked, end = AgentClient(workers[0], "asks_in_node").stream("Hello", thread_id="t-1")

    assert isinstance(asked, InterruptEvent)
    assert isinstance(end, EndEvent)
    assert (asked.value, bool(asked.id), end.status) == ("Shall I?", True, "waiting")
