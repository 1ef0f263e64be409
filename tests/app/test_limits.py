"""Limits of a user: turns at once, messages a minute, tokens a day, over all processes of a database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from app.client import AgentClient, AgentError, Refused
from app.schema import RunEvent
from tests.app.storage import Storage
from tests.flawed_agents import TABLE
from tests.processes import until

STORY = "Tell me a story of 50 words"
HELLO = {"message": "Hello", "user_id": "ada"}


@contextmanager
def limited(storage: Storage, **limits: int) -> Iterator[httpx.Client]:
    """A service with these limits."""
    with storage.service(TABLE, **limits) as url, httpx.Client(base_url=url, timeout=60) as http:
        yield http


def retry_after(refused: httpx.Response) -> int:
    """The header of a refusal, which is one sentence."""
    assert refused.status_code == 429, refused.text
    assert "try again in" in refused.json()["detail"]
    return int(refused.headers["retry-after"])


@pytest.mark.parametrize("path", ["/invoke", "/stream", "/chatbot/runs"])
def test_messages_a_minute(storage: Storage, path: str) -> None:
    """However they are sent; others may go on, a refused one begins no thread, and deleting threads helps nobody."""
    with limited(storage, MAX_MESSAGES_PER_MINUTE=2) as http:
        for number in range(2):
            http.post("/invoke", json=HELLO | {"thread_id": f"t-{number}"}).raise_for_status()
        assert http.delete("/threads/t-0", headers={"X-User-Id": "ada"}).is_success
        refused = http.post(path, json=HELLO | {"thread_id": "t-2"})

        assert 50 < retry_after(refused) <= 60
        assert "You have sent 2 messages within a minute" in refused.json()["detail"]
        threads = http.get("/threads", headers={"X-User-Id": "ada"}).json()["threads"]
        assert [thread["thread_id"] for thread in threads] == ["t-1"]
        assert http.post(path, json=HELLO | {"user_id": "bob"}).is_success
        storage.rows("update admitted_turns set at = at - 61")
        assert http.post(path, json=HELLO).is_success


def test_what_is_refused_for_another_reason_does_not_count(storage: Storage) -> None:
    """An unknown agent, a thread of another user, an answer to a question that is not open."""
    with limited(storage, MAX_MESSAGES_PER_MINUTE=2, MAX_TURNS_PER_USER=1) as http:
        http.post("/invoke", json=HELLO | {"user_id": "bob", "thread_id": "t-bob"}).raise_for_status()
        for _ in range(3):
            assert http.post("/nobody/invoke", json=HELLO).status_code == 404
            assert http.post("/invoke", json=HELLO | {"thread_id": "t-bob"}).status_code == 404
            assert http.post("/invoke", json=HELLO | {"answers": {"q": "yes"}, "thread_id": "t-1"}).status_code == 409
            assert http.post("/chatbot/runs", json=HELLO | {"thread_id": "t-bob"}).status_code == 404
        assert [http.post("/invoke", json=HELLO).status_code for _ in range(3)] == [200, 200, 429]


def test_turns_at_once(storage: Storage) -> None:
    """A turn counts until it has ended, a background run from its submission on."""
    with limited(storage, MAX_TURNS_PER_USER=1) as http:
        url = str(http.base_url)
        turn = AgentClient(url, "slow", user_id="ada").stream("What is 12*34?", thread_id="t-1")
        run = next(turn)
        assert isinstance(run, RunEvent)
        for path in ("/invoke", "/stream", "/chatbot/runs"):
            assert retry_after(http.post(path, json=HELLO)) > 0
        assert http.post("/invoke", json=HELLO | {"user_id": "bob"}).is_success
        AgentClient(url).cancel(run.run_id)
        assert list(turn)

        run_id = http.post("/bg-task/runs", json=HELLO | {"message": "work for 60 seconds"}).json()["run_id"]
        assert retry_after(http.post("/invoke", json=HELLO)) > 0
        http.post(f"/runs/{run_id}/cancel").raise_for_status()
        until(lambda: http.get(f"/runs/{run_id}").json()["status"] == "cancelled")
        until(lambda: http.post("/invoke", json=HELLO).is_success)
        assert http.post("/invoke", json=HELLO).is_success


@pytest.mark.parametrize("background", [False, True])
def test_tokens_a_day(storage: Storage, background: bool) -> None:
    """The turn that reaches the limit is the last one, until enough of them are a day old."""
    with limited(storage, MAX_TOKENS_PER_DAY=20) as http:
        if background:
            run_id = http.post("/chatbot/runs", json=HELLO | {"message": STORY}).json()["run_id"]
            until(lambda: http.get(f"/runs/{run_id}").json()["status"] == "completed")
        else:
            http.post("/invoke", json=HELLO | {"message": STORY}).raise_for_status()
        refused = http.post("/invoke", json=HELLO)

        assert 86_000 < retry_after(refused) <= 86_400
        assert "of 20 tokens within a day: try again in 24 hours." in refused.json()["detail"]
        storage.rows("update admitted_turns set at = at - 86401")
        assert http.post("/invoke", json=HELLO).is_success
    assert storage.count("admitted_turns") == 1, "older rows are deleted"


def test_they_hold_over_all_processes(postgres_storage: Storage) -> None:
    """Of many messages that two replicas are sent at once, as many are taken as the limit allows."""
    with (
        limited(postgres_storage, MAX_MESSAGES_PER_MINUTE=5) as one,
        limited(postgres_storage, MAX_MESSAGES_PER_MINUTE=5) as other,
        ThreadPoolExecutor(16) as pool,
    ):
        statuses = list(pool.map(lambda http: http.post("/invoke", json=HELLO).status_code, [one, other] * 8))

    assert sorted(statuses) == [200] * 5 + [429] * 11


def test_turns_at_once_hold_over_all_processes(postgres_storage: Storage) -> None:
    """However close together they are sent, no more than the limit run."""
    with (
        limited(postgres_storage, MAX_TURNS_PER_USER=2) as one,
        limited(postgres_storage, MAX_TURNS_PER_USER=2) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        run = HELLO | {"message": "work for 600 seconds"}
        answers = list(pool.map(lambda http: http.post("/bg-task/runs", json=run), [one, other] * 4))
        for answer in answers:
            if answer.is_success:
                one.post(f"/runs/{answer.json()['run_id']}/cancel").raise_for_status()

    assert sorted(answer.status_code for answer in answers) == [202] * 2 + [429] * 6


def test_the_client_raises_the_sentence(storage: Storage) -> None:
    """With the seconds after which it may be sent again."""
    with limited(storage, MAX_MESSAGES_PER_MINUTE=1) as http:
        client = AgentClient(str(http.base_url), "chatbot", user_id="ada")
        client.invoke("Hello")
        for call in (client.invoke, lambda text: list(client.stream(text)), client.submit):
            with pytest.raises(Refused, match="You have sent 1 messages within a minute: try again in") as refused:
                call("Hello")
            assert isinstance(refused.value, AgentError)
            assert refused.value.status == 429
            assert 50 < (refused.value.retry_after_s or 0) <= 60


def test_without_limits_nothing_is_counted(storage: Storage) -> None:
    """They are off by default."""
    with limited(storage) as http:
        http.post("/invoke", json=HELLO).raise_for_status()
    assert storage.count("admitted_turns") == 0
