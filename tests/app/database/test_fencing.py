"""A turn that has lost its thread to another process writes nothing more to it."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg
import pytest

from app.client import AgentClient, Refused
from app.schema import ChatMessage, EndEvent, MessageEvent, RunEvent, StreamEvent
from telemetry.testing.receiver import Receiver
from tests.background import Api, api
from tests.postgres import postgres
from tests.processes import until

STORY = "Tell me a story of 80 words"
LOST = "The service ended before the turn did."


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def replicas(database: str, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Api]]:
    folder = tmp_path_factory.mktemp("fencing")
    # With heartbeats that a stopped process does not miss.
    env = {"DATABASE_URL": database, "DEMO_PACE_S": "0.05", "HEARTBEAT_S": "60"}
    with api(folder / "1", receiver, env) as first, api(folder / "2", receiver, env) as second:
        yield first, second


def drop_locks(database: str) -> None:
    """End the sessions that hold locks on threads."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(pid, 60000) from pg_locks where locktype = 'advisory'")


def begin_story(service: Api, thread_id: str, pool: ThreadPoolExecutor) -> "tuple[str, Future[list[StreamEvent]]]":
    """The run of a turn that is under way, and all that its reader will have heard of it."""
    events = AgentClient(service.url).stream(STORY, thread_id=thread_id)
    run = next(events)
    assert isinstance(run, RunEvent)
    # Enough that some of the answer has been stored.
    heard: list[StreamEvent] = [run, *(next(events) for _ in range(30))]
    return run.run_id, pool.submit(lambda: [*heard, *events])


def take_over(service: Api, thread_id: str) -> ChatMessage:
    """The answer to a message on the thread, once another process has lost it."""
    client = AgentClient(service.url)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            return client.invoke("What is 6*7?", thread_id=thread_id)
        except Refused:
            time.sleep(0.01)
    raise AssertionError("the thread stayed busy")


def assert_fenced(
    told: Sequence[StreamEvent], answer: ChatMessage, run_id: str, clients: Sequence[AgentClient], receiver: Receiver
) -> None:
    """Reader, histories and trace say that the turn failed, and nothing of it follows the other turn's messages."""
    end = told[-1]
    assert isinstance(end, EndEvent)
    assert end.status == "failed"
    for client in clients:
        history = client.get_history(thread_of(told))
        assert [(turn.run_id, turn.status, turn.error) for turn in history.turns] == [
            (run_id, "failed", LOST),
            (answer.run_id, "completed", None),
        ]
        runs = [message.run_id for message in history.messages]
        assert runs == sorted(runs, key=[run_id, answer.run_id].index)
        assert history.messages[-1].content == answer.content == "The calculator tool says: 42"
        assert sum(message.type == "human" for message in history.messages) == 2
        # The story was never told to its end.
        assert not any(isinstance(event, MessageEvent) for event in told)
    spans = [
        span.attributes["turn.status"]
        for span in receiver.spans
        if span.name == "turn" and span.attributes.get("langfuse.trace.metadata.run") == run_id
    ]
    assert set(spans) == {"failed"}


def thread_of(told: Sequence[StreamEvent]) -> str:
    assert isinstance(told[0], RunEvent)
    return told[0].thread_id


def test_a_process_that_stood_still(replicas: tuple[Api, Api], database: str, receiver: Receiver) -> None:
    """A process is stopped in mid-turn and loses its locks; when it goes on, another has answered on the thread."""
    first, second = replicas
    with ThreadPoolExecutor(1) as pool:
        run_id, reader = begin_story(first, "stopped", pool)
        first.pause()
        try:
            drop_locks(database)
            answer = take_over(second, "stopped")
        finally:
            first.wake()
        told = reader.result(60)
    until(lambda: any(span.attributes.get("langfuse.trace.metadata.run") == run_id for span in receiver.spans))
    time.sleep(1)  # so long as the story would have gone on
    assert_fenced(told, answer, run_id, [AgentClient(each.url) for each in replicas], receiver)


def test_a_process_that_lost_its_locks(replicas: tuple[Api, Api], database: str, receiver: Receiver) -> None:
    """A process goes on, and another is faster to lock the thread than it is to lock it again."""
    first, second = replicas
    for attempt in range(10):
        with ThreadPoolExecutor(1) as pool:
            run_id, reader = begin_story(first, f"lost-{attempt}", pool)
            drop_locks(database)
            answer = take_over(second, f"lost-{attempt}")
            told = reader.result(60)
        end = told[-1]
        assert isinstance(end, EndEvent)
        if end.status == "completed":
            continue  # it was faster
        until(lambda run=run_id: any(s.attributes.get("langfuse.trace.metadata.run") == run for s in receiver.spans))
        assert_fenced(told, answer, run_id, [AgentClient(each.url) for each in replicas], receiver)
        return
    raise AssertionError("it was always faster")


def test_nothing_is_left_half(replicas: tuple[Api, Api]) -> None:
    """Both can be used afterwards, and have logged no traceback."""
    for each in replicas:
        assert AgentClient(each.url).invoke("What is 3*4?").content == "The calculator tool says: 12"
        assert "Traceback" not in each.process.log
