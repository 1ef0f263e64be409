"""The service's contract: what it answers, to whom, and how it refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import telemetry
from app.client import AgentClient, Refused
from app.service import MAX_BODY_BYTES
from app.settings import load_settings
from telemetry import SettingsError
from telemetry.testing import Recorded
from tests.service import service, user_token

SECRET = "a secret of more than thirty-two characters"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def url(spans: Recorded, tmp_path: Path) -> Iterator[str]:
    with service(tmp_path) as address:
        yield address


@pytest.fixture
def guarded(spans: Recorded, tmp_path: Path) -> Iterator[str]:
    with service(tmp_path, AUTH_SECRET=SECRET) as address:
        yield address


def token(user: str, secret: str = SECRET) -> dict[str, str]:
    return {"Authorization": f"Bearer {user_token(user, secret)}"}


def test_info(url: str) -> None:
    """/info names the agents, the models and what is taken without a choice."""
    info = AgentClient(url).info()

    assert "chatbot" in [agent.key for agent in info.agents]
    assert all(agent.error is None for agent in info.agents)
    assert (info.default_agent, info.default_model) == ("chatbot", "demo")


def test_a_thread_is_remembered(url: str) -> None:
    """What was said on a thread is known in its next turn and stands in its history, with runs and traces."""
    client = AgentClient(url)
    first = client.invoke("My name is Ada.", thread_id="t-1")
    second = client.invoke("What is my name?", thread_id="t-1")
    history = client.get_history("t-1").messages

    assert "Ada" in second.content
    assert [message.type for message in history] == ["human", "ai", "human", "ai"]
    assert [message.run_id for message in history] == [first.run_id, first.run_id, second.run_id, second.run_id]
    assert history[0].trace_id == first.trace_id != second.trace_id == history[2].trace_id


def test_a_thread_outlives_the_process(spans: Recorded, tmp_path: Path) -> None:
    """A restarted service still knows the thread and the trace of each message."""
    with service(tmp_path) as address:
        said = AgentClient(address).invoke("My name is Ada.", thread_id="t-1")
    with service(tmp_path) as address:
        history = AgentClient(address).get_history("t-1").messages

    assert history[1].content == said.content
    assert {message.trace_id for message in history} == {said.trace_id}


def test_the_answer_names_its_trace(url: str) -> None:
    """Every traced answer carries the W3C traceresponse header."""
    response = httpx.post(f"{url}/invoke", json={"message": "Hello"})

    assert response.headers["traceresponse"].split("-")[1] == response.json()["trace_id"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/nobody/invoke", {"message": "Hello"}, 404, "There is no agent nobody; choose one of: chatbot"),
        ("/invoke", {"message": ""}, 422, "message: "),
        ("/invoke", {"message": "  \n "}, 422, "message: "),
        ("/stream", {"message": "x" * 100_001}, 422, "at most 100000 characters"),
        ("/stream", {"message": "x" * (MAX_BODY_BYTES + 1)}, 413, "larger than 1,000,000 bytes"),
        ("/invoke", {}, 422, "Send a message"),
        ("/invoke", {"message": "Hello", "massage": 1}, 422, "massage: "),
        ("/invoke", {"message": "Hello", "model": "openai:gpt-99"}, 422, "choose one of: demo"),
        ("/invoke", {"message": "Hello", "thread_id": "../../etc/passwd"}, 422, "thread_id: "),
        ("/invoke", {"message": "Hello", "thread_id": "a\x00b"}, 422, "thread_id: "),
        ("/invoke", {"message": "Hello", "user_id": "a/b"}, 422, "user_id: "),
        ("/invoke", {"message": "Hello", "agent_config": {"api_key": "x"}}, 422, "agent_config.api_key: "),
        ("/history", {"thread_id": "unheard-of"}, 404, "There is no thread unheard-of."),
        ("/nobody/history", {"thread_id": "unheard-of"}, 404, "There is no thread unheard-of."),
    ],
)
def test_bad_input_is_refused(url: str, path: str, body: dict[str, Any], status: int, words: str) -> None:
    """Bad input gets a 4xx and a sentence, and leaves nothing behind."""
    response = httpx.post(url + path, json=body)

    assert (response.status_code, words in response.json()["detail"]) == (status, True), response.text
    if thread_id := body.get("thread_id"):
        assert httpx.post(f"{url}/history", json={"thread_id": thread_id}).status_code in (404, 422)


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/invoke", b'{"message": ', "The body is not valid JSON: Expecting value at character 12."),
        ("/invoke", b'{"message": "\xff"}', "The body is not JSON in UTF-8."),
        ("/invoke", b"", "Send a JSON object as the body, with Content-Type: application/json."),
        ("/invoke", b"[1]", "Send a JSON object as the body, with Content-Type: application/json."),
        ("/invoke", b'{"message": 5}', "message: send text."),
        ("/invoke", b'{"message": "\\ud800"}', "message: send text without unpaired surrogates."),
        ("/invoke", b'{"message": "a", "massage": "b"}', "massage: there is no such field; remove it."),
        (
            "/invoke",
            b'{"message": "a", "thread_id": "../x"}',
            "thread_id: send 1 to 128 letters, digits, _ . : and -, the first of them a letter or a digit.",
        ),
        (
            "/invoke",
            b'{"message": "a", "agent_config": {"x": 1}}',
            "agent_config.x: there is no such field; remove it.",
        ),
        ("/stream", b'{"message": "a", "stream_tokens": "maybe"}', "stream_tokens: send true or false."),
        ("/feedback", b'{"run_id": "r", "key": "k"}', "score: Field required."),
        (
            "/feedback",
            b'{"run_id": "r", "key": "k", "score": [1]}',
            "score: send true or false or a number or text.",
        ),
        (
            "/feedback",
            b'{"run_id": "r", "key": "k", "score": 1, "kwargs": {"a": "\\ud800"}}',
            "kwargs: an unpaired surrogate is not text: remove it.",
        ),
        ("/events", b'{"name": "jump"}', "name: send one of 'page_load', 'file_upload', 'stop' or 'feedback'."),
        ("/threads?limit=x", None, "limit: send a whole number."),
        ("/threads?limit=0", None, "limit: send 1 or more."),
        ("/threads?before=then", None, "before: send a date and time, such as 2026-01-31T12:00:00Z."),
        ("/files", None, "thread_id: Field required."),
        ("/nowhere", None, "There is no route /nowhere; /docs lists all routes."),
        ("/invoke", None, "/invoke does not allow GET: use POST."),
    ],
)
def test_a_refusal_is_one_plain_sentence(url: str, path: str, body: bytes | None, sentence: str) -> None:
    """Whatever the framework would say: the field, what to send, and the trace's id, in one shape."""
    method = "GET" if body is None else "POST"
    response = httpx.request(method, url + path, content=body, headers={"Content-Type": "application/json"})
    said = response.json()

    assert 400 <= response.status_code < 500
    assert set(said) == {"detail", "trace_id"}
    assert len(said["trace_id"]) == 32
    assert said["detail"] == sentence


def test_broken_json_is_refused(url: str) -> None:
    """A body that is no JSON is a 422 with a sentence."""
    response = httpx.post(f"{url}/invoke", content=b'{"message": ', headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert "JSON" in response.json()["detail"]


def test_a_body_without_a_length_is_measured(url: str) -> None:
    """A streamed body cannot pass the limit by keeping its length to itself."""
    response = httpx.post(f"{url}/invoke", content=(b"x" * 100_000 for _ in range(20)))

    assert response.status_code == 413


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, token("ada", "another secret that is as long as the first")]
)
def test_wrong_bearer(guarded: str, headers: dict[str, str]) -> None:
    """Without the secret or a token signed with it nothing but /health answers."""
    assert httpx.get(f"{guarded}/health").status_code == 200
    for method, path in (("GET", "/info"), ("POST", "/invoke"), ("POST", "/history")):
        response = httpx.request(method, guarded + path, json={"message": "x", "thread_id": "t"}, headers=headers)
        assert response.status_code == 401
        assert "Bearer" in response.json()["detail"]


def test_a_token_names_its_user(guarded: str) -> None:
    """A token's subject is the user: another claim is refused, another user's thread is not there."""
    asked = {"message": "My name is Ada.", "thread_id": "t-1"}

    assert httpx.post(f"{guarded}/invoke", json=asked, headers=token("ada")).status_code == 200
    assert httpx.post(f"{guarded}/invoke", json={**asked, "user_id": "bob"}, headers=token("ada")).status_code == 403
    assert httpx.post(f"{guarded}/invoke", json=asked, headers=token("bob")).status_code == 404
    assert httpx.post(f"{guarded}/history", json={"thread_id": "t-1"}, headers=token("bob")).status_code == 404


def test_the_secret_speaks_for_users(guarded: str) -> None:
    """A trusted front end names the user in X-User-Id."""
    ada = AgentClient(guarded, auth_secret=SECRET, user_id="ada")
    ada.invoke("Hello", thread_id="t-1")

    with pytest.raises(Refused) as refused:
        AgentClient(guarded, auth_secret=SECRET, user_id="bob").get_history("t-1")
    assert refused.value.status == 404
    assert ada.get_history("t-1").messages


def test_a_user_may_have_any_name(guarded: str, spans: Recorded) -> None:
    """A name beyond ASCII is the same in the header, in the span and in the next request."""
    zoe = AgentClient(guarded, auth_secret=SECRET, user_id="Zoë 李")
    zoe.invoke("Hello", thread_id="t-1")

    assert zoe.get_history("t-1").messages
    (turn,) = [span for span in spans.settled() if span.name == "turn"]
    assert (turn.attributes or {})["user.id"] == "Zoë 李"


@pytest.mark.parametrize("header", [b"../root", b"\xff\xfe", b"x" * 129])
def test_an_impossible_user_is_refused(guarded: str, header: bytes) -> None:
    """A user id that no user can have is a 422 with a sentence."""
    headers: dict[bytes, bytes] = {b"Authorization": f"Bearer {SECRET}".encode(), b"X-User-Id": header}

    assert httpx.get(f"{guarded}/info", headers=headers).status_code == 422


def test_only_the_trusted_continue_a_trace(guarded: str, spans: Recorded) -> None:
    """The secret's holder continues a trace; a user with a token begins a new one, linked to it."""

    def traced(headers: dict[str, str]) -> str:
        with telemetry.suppress_instrumentation():
            sent = {**headers, "traceparent": PARENT}
            return httpx.post(f"{guarded}/invoke", json={"message": "Hello"}, headers=sent).json()["trace_id"]

    theirs, ours = traced({"Authorization": f"Bearer {SECRET}"}), traced(token("ada"))

    assert theirs == PARENT.split("-")[1] != ours
    links = [link for span in spans.settled() for link in span.links if span.name == "POST /invoke"]
    assert [f"{link.context.trace_id:032x}" for link in links] == [theirs]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"HOST": "0.0.0.0"}, "set AUTH_SECRET"),
        ({"AUTH_SECRET": "short"}, "AUTH_SECRET"),
        ({"PORT": "eighty"}, "PORT"),
        ({"KEEPALIVE_S": "60"}, "KEEPALIVE_S"),
        ({"TURN_TIMEOUT_S": "0"}, "TURN_TIMEOUT_S"),
    ],
)
def test_unsafe_settings_are_refused(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], words: str) -> None:
    """An unsafe or impossible setting is one sentence at start."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=words) as refused:
        load_settings()
    assert "\n" not in str(refused.value)
