"""A real PgBouncer in transaction mode in front of Postgres: everything works as without it, or is refused at start."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from app.client import AgentClient, Refused
from app.database.pooler import keeps_sessions
from app.database.postgres_connections import Connections
from app.schema import EndEvent, RunEvent
from telemetry.testing.receiver import Receiver
from tests import processes
from tests.app.test_rejoined_turns import leave_after, rejoin, run_of
from tests.background import Api, api
from tests.pgbouncer import pgbouncer
from tests.postgres import postgres
from tests.processes import free_port, until

# Fewer sessions than two services have connections, so that each session serves several of them.
FEW = "default_pool_size = 4\nmin_pool_size = 0\n"


@pytest.fixture(scope="module")
def direct() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(scope="module")
def replicas(direct: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Api]]:
    """Two services on one database behind the pooler."""
    folder = tmp_path_factory.mktemp("pooled")
    with pgbouncer(direct, settings=FEW) as pooler, Receiver() as receiver:
        env = {"DATABASE_URL": pooler, "DATABASE_DIRECT_URL": direct, "DEMO_PACE_S": "0.03"}
        with api(folder / "1", receiver, env) as first, api(folder / "2", receiver, env) as second:
            yield first, second


def test_turns(replicas: tuple[Api, Api]) -> None:
    """Many turns at once on both replicas are answered, each other replica knows them, nothing is logged."""
    clients = [AgentClient(each.url) for each in replicas]
    batch = uuid4().hex

    def ask(number: int) -> str:
        thread_id = f"{batch}-{number}"
        clients[number % 2].invoke(f"What is {number}*10?", thread_id=thread_id)
        return clients[number % 2 - 1].invoke("What is 3*4?", thread_id=thread_id).content

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(16))) == {"The calculator tool says: 12"}
    assert [len(clients[0].get_history(f"{batch}-{number}").messages) for number in range(16)] == [8] * 16
    assert not any("Traceback" in each.process.log or "ERROR" in each.process.log for each in replicas)


def test_a_background_run(replicas: tuple[Api, Api]) -> None:
    """It is executed, and followed at the other replica."""
    pytest.importorskip("dbos", reason="background runs need DBOS")
    first, second = replicas
    run = first.submit("what is 1+1 and 2+2")
    assert second.over(run["run_id"])["status"] == "completed"
    assert json.loads(second.events(run["run_id"])[-1][1])["type"] == "end"


def test_a_cancel_from_another_replica(replicas: tuple[Api, Api]) -> None:
    """The turn ends as cancelled."""
    events = AgentClient(replicas[0].url).stream("Tell me a story of 400 words", thread_id="cancelled")
    run = next(events)
    assert isinstance(run, RunEvent)
    AgentClient(replicas[1].url).cancel(run.run_id)
    end = list(events)[-1]
    assert isinstance(end, EndEvent)
    assert end.status == "cancelled"


def test_a_thread_is_answered_by_one_replica(replicas: tuple[Api, Api]) -> None:
    """While one answers, the other refuses, however many sessions the pooler has given to whom."""
    first, second = (AgentClient(each.url) for each in replicas)
    for number in range(3):
        events = first.stream("Tell me a story of 1000 words", thread_id=f"busy-{number}")
        run = next(events)
        assert isinstance(run, RunEvent)
        for _ in range(3):
            with pytest.raises(Refused, match="is already answering"):
                second.invoke("Hello", thread_id=f"busy-{number}")
            second.invoke("Hello")
        second.cancel(run.run_id)
        list(events)
        assert until(lambda at=f"busy-{number}": succeeds(second, at))


def succeeds(client: AgentClient, thread_id: str) -> bool:
    try:
        return bool(client.invoke("Hello", thread_id=thread_id).content)
    except Refused:
        return False


def test_a_rejoined_turn(replicas: tuple[Api, Api]) -> None:
    """Its events are read at the other replica."""
    seen = leave_after(replicas[0].url, 10, thread_id="rejoined")
    rest = rejoin(replicas[1].url, run_of(seen), 10)
    assert [number for number, _ in [*seen, *rest]] == list(range(1, len(seen + rest) + 1))
    assert rest[-1][1]["status"] == "completed"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (("DATABASE_URL",), "DATABASE_URL leads to a connection pooler, which keeps no sessions"),
        (
            ("DATABASE_URL", "DATABASE_DIRECT_URL"),
            "DATABASE_DIRECT_URL leads to a connection pooler, which keeps no sessions",
        ),
    ],
)
def test_a_pooler_without_sessions_is_refused(
    direct: str, variables: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    """The start ends with one sentence that says what to do, also where the pooler ignores options."""
    for settings in ("", "ignore_startup_parameters = options\n"):
        if not settings and len(variables) == 2:
            continue
        with pgbouncer(direct, settings=settings) as pooler:
            env = {"PORT": str(free_port()), "DATA_DIR": str(tmp_path), **dict.fromkeys(variables, pooler)}
            status, said = processes.run("app", env=processes.bare() | env)
        last = said.splitlines()[-1]
        assert (status, last.startswith(sentence), "Traceback" in said) == (2, True, False), said


def test_a_pooler_that_is_away_is_an_outage(direct: str, tmp_path: Path) -> None:
    """Where the server answers and its pooler does not, requests get a 503, and afterwards are served again."""
    port = free_port()
    with Receiver() as receiver:
        pooler_env = {"DATABASE_DIRECT_URL": direct}
        with pgbouncer(direct, port=port) as pooler:
            service = api(tmp_path, receiver, {"DATABASE_URL": pooler, **pooler_env})
            one = service.__enter__()
        try:
            until(lambda: httpx.get(f"{one.url}/health/ready", timeout=60).status_code == 503)
            assert httpx.get(f"{one.url}/threads", timeout=60).status_code == 503
            with pgbouncer(direct, port=port):
                until(lambda: httpx.get(f"{one.url}/health/ready", timeout=60).status_code == 200)
                assert AgentClient(one.url).invoke("What is 3*4?").content == "The calculator tool says: 12"
        finally:
            service.__exit__(None, None, None)


async def test_a_pooler_with_sessions_may_be_the_direct_address(direct: str) -> None:
    """In session mode each client has a session of its own."""
    with (
        pgbouncer(direct, "session", "ignore_startup_parameters = options\n") as with_sessions,
        pgbouncer(direct, "transaction", "ignore_startup_parameters = options\n") as without_sessions,
    ):
        kept = [await keeps_sessions(Connections(url)) for url in (direct, with_sessions, without_sessions)]
    assert kept == [True, True, False]
