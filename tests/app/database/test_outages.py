"""What users are told and what becomes of their turns and runs while Postgres is away; the matrix is in tests/chaos."""

import asyncio
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from app.client import AgentClient
from app.database.postgres import open_postgres
from app.database.thread_store import Thread
from app.schema import EndEvent, RunEvent, TokenEvent
from telemetry.testing.receiver import Receiver
from tests.background import Api, api
from tests.chaos.outages import outage_of
from tests.postgres import Postgres, postgres_server
from tests.processes import until

STORY = "Tell me a story of 40 words"


@contextmanager
def served(folder: Path, receiver: Receiver, **env: str) -> Iterator[tuple[Api, Postgres]]:
    """A process of the service with a server of its own."""
    with postgres_server() as server, api(folder, receiver, {"DATABASE_URL": server.url, **env}) as one:
        yield one, server


def ready(one: Api) -> bool:
    return httpx.get(f"{one.url}/health/ready", timeout=60).is_success


def away(one: Api) -> bool:
    return not ready(one)


@pytest.mark.parametrize("fault", [pytest.param("stop", marks=pytest.mark.chaos), "hang"])
def test_callers_are_told_when_to_come_back(tmp_path: Path, fault: str) -> None:
    """503 with Retry-After, without a word in the log but two; our client comes back by itself, and turns go on."""
    with Receiver() as receiver, served(tmp_path, receiver, DEMO_PACE_S="0.05") as (one, server):
        assert AgentClient(one.url).invoke("Hello").content
        client = AgentClient(one.url)
        events = client.stream(STORY, thread_id="t-1")
        assert isinstance(next(events), RunEvent)
        run = one.submit("what is 1+1 and 1+2")
        getattr(server, fault)()
        until(lambda: away(one))

        refused = [
            httpx.post(f"{one.url}/chatbot/stream", json={"message": "Hello"}, timeout=60),
            httpx.get(f"{one.url}/threads", timeout=60),
            httpx.post(f"{one.url}/steps/runs", json={"message": "Hello"}, timeout=60),
        ]
        assert [(each.status_code, each.headers["retry-after"]) for each in refused] == [(503, "2")] * 3
        health = httpx.get(f"{one.url}/health", timeout=60).json()
        assert (health["status"], health["ready"]) == ("ok", False)

        (server.start if fault == "stop" else server.wake)()
        assert client.invoke("Hello", thread_id="t-2").content
        *_, end = events
        assert isinstance(end, EndEvent)
        assert end.status == "completed"
        assert [turn.status for turn in client.get_history("t-1").turns] == ["completed"]
        done = one.over(run["run_id"])
        assert (done["status"], len(done["trace_ids"])) == ("completed", 1)
        told = [line for line in one.process.log.splitlines() if "database" in line]
        assert (len(told), "Traceback" in one.process.log) == (2, False)


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]])
def test_a_hanging_database_does_not_keep_the_process(tmp_path: Path, signals: list[signal.Signals]) -> None:
    """It ends although a turn waits for the database; whoever reads the turn is told its end, unless it is urgent."""
    told: list[Any] = []
    with Receiver() as receiver, served(tmp_path, receiver, DEMO_PACE_S="0.05") as (one, server):
        one.submit("work for 600 seconds", agent="bg-task")
        events = AgentClient(one.url).stream("Tell me a story of 4000 words", thread_id="t-1")
        until(lambda: isinstance(next(events), TokenEvent))
        server.hang()
        until(lambda: away(one))
        one.process.popen.send_signal(signals[0])
        if len(signals) == 1:
            told = list(events)
        for further in signals[1:]:
            until(lambda: not accepts(one))
            one.process.popen.send_signal(further)

        assert one.process.popen.wait(60)
        if len(signals) == 1:
            assert (told[-1].status, told[-1].stored) == ("cancelled", False)
        assert "Traceback" not in one.process.log


def accepts(one: Api) -> bool:
    try:
        return httpx.get(f"{one.url}/health", timeout=60).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("fault", ["hung", pytest.param("stopped", marks=pytest.mark.chaos), "cut"])
async def test_no_connection_is_lost_in_an_outage(fault: str) -> None:
    """The server has no more than the pool and the locks, though callers were cancelled at random moments."""
    chance = random.Random(fault)
    with postgres_server() as server, outage_of(server, fault) as away:
        async with open_postgres(away.env["DATABASE_URL"]) as database:

            async def use(name: str) -> None:
                await database.store.get_or_create(Thread(name, "", "chatbot"))
                await database.checkpoints.aget_tuple({"configurable": {"thread_id": name, "checkpoint_ns": ""}})
                if await database.thread_locks.acquire(name):
                    await database.thread_locks.release(name)

            async def user(name: str) -> None:
                while not over.is_set():
                    with suppress(TimeoutError, SQLAlchemyError, psycopg.Error):
                        async with asyncio.timeout(chance.choice([None, 0.01, 0.05, 0.3])):
                            await use(name)
                    await asyncio.sleep(0.02)

            over = asyncio.Event()
            users = [asyncio.create_task(user(f"t-{number}")) for number in range(30)]
            await asyncio.sleep(1)
            await asyncio.to_thread(away.begin)
            await asyncio.sleep(3)
            await asyncio.to_thread(away.end)
            await asyncio.sleep(1)
            over.set()
            await asyncio.gather(*users)
            await asyncio.to_thread(until, lambda: database.availability.is_usable)
            await use("t-last")
            pool = database.engine.pool
            assert isinstance(pool, QueuePool)
            locks = 1
            # The pool also counts those that it has lost, and opens them again when they are needed.
            await asyncio.to_thread(until, lambda: 0 < connections(server.url) <= pool.checkedin() + locks)
            assert pool.checkedout() == 0


def connections(url: str) -> int:
    """How many connections others have to the server."""
    query = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
    with psycopg.connect(url) as connection:
        [(number,)] = connection.execute(query).fetchall()
    return number


def test_a_turn_whose_process_dies_has_failed(tmp_path: Path) -> None:
    """Another process ends it in the history and the list of threads: its lock is free."""
    with Receiver() as receiver, served(tmp_path / "1", receiver, DEMO_PACE_S="0.05") as (first, server):
        events = AgentClient(first.url).stream("Tell me a story of 4000 words", thread_id="t-1")
        until(lambda: isinstance(next(events), TokenEvent))
        with api(tmp_path / "2", receiver, {"DATABASE_URL": server.url}) as second:
            first.kill()
            client = AgentClient(second.url)
            until(lambda: client.get_thread("t-1").status == "failed", 120)
            [turn] = client.get_history("t-1").turns
    assert (turn.status, turn.error) == ("failed", "The service ended before the turn did.")
