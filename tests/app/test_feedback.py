"""Feedback: a score on the trace of a run, which only its user can judge, and which is never lost."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import AgentClient
from app.routes import feedback
from telemetry.delivery import scores
from telemetry.settings import load_settings
from telemetry.testing import Recorded, recording
from tests.langfuse_server import Langfuse, langfuse_server
from tests.processes import Process, free_port, start, until
from tests.service import service, user_token

SECRET = "a secret of more than thirty-two characters"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Langfuse]:
    with langfuse_server(tmp_path) as langfuse:
        for name, value in langfuse.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TELEMETRY_SPOOL_DIR", str(tmp_path / "spool"))
        monkeypatch.setattr(feedback, "MAX_WAIT_S", 60)
        monkeypatch.setattr(scores, "SETTLED_S", 1)
        yield langfuse


@pytest.fixture
def spans(server: Langfuse) -> Iterator[Recorded]:
    with recording(load_settings()) as recorded:
        yield recorded


@pytest.fixture
def url(spans: Recorded, tmp_path: Path) -> Iterator[str]:
    with service(tmp_path) as address:
        yield address


def judge(url: str, run_id: str | None, score: Any, key: str = "stars", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return httpx.post(f"{url}/feedback", json={"run_id": run_id, "key": key, "score": score, **more}, headers=headers)


def test_feedback_is_a_score_on_the_turns_trace(url: str, server: Langfuse) -> None:
    """The answer names trace, run and score, and says that Langfuse has it; there it is, with comment and metadata."""
    said = AgentClient(url).invoke("Hello", thread_id="t-1")
    answer = judge(url, said.run_id, 1, comment="Nice.", kwargs={"page": 2}).json()
    [score] = server.scores(said.trace_id or "")

    assert answer["places"] == {"langfuse": "sent"}
    assert (answer["status"], answer["trace_id"], answer["run_id"]) == ("success", said.trace_id, said.run_id)
    assert (score["id"], score["value"], score["comment"]) == (answer["score_id"], 1, "Nice.")
    assert (score["metadata"], score["subject"]["id"]) == ({"page": 2}, said.trace_id)


def test_a_comment_among_the_keyword_arguments(url: str, server: Langfuse) -> None:
    """Clients that put the comment into kwargs are understood."""
    said = AgentClient(url).invoke("Hello")
    judge(url, said.run_id, 1, kwargs={"comment": "Nice."})

    assert server.scores(said.trace_id or "")[0]["comment"] == "Nice."


def test_a_mind_can_be_changed(url: str, server: Langfuse) -> None:
    """A user's next word under the same key is the only one, and null takes it back."""
    said = AgentClient(url).invoke("Hello")
    ids = [judge(url, said.run_id, score).json()["score_id"] for score in (1, 0.2, True)]

    assert len(set(ids)) == 1
    assert [score["value"] for score in server.scores(said.trace_id or "")] == [True]
    assert judge(url, said.run_id, None).json()["score_id"] == ids[0]
    assert server.scores(said.trace_id or "") == []


def test_only_the_runs_user_judges_it(spans: Recorded, server: Langfuse, tmp_path: Path) -> None:
    """Somebody else's run is not there, whether it exists or not."""
    with service(tmp_path, AUTH_SECRET=SECRET) as url:
        ada, bob = ({"Authorization": f"Bearer {user_token(user, SECRET)}"} for user in ("ada", "bob"))
        run_id = httpx.post(f"{url}/invoke", json={"message": "Hello"}, headers=ada).json()["run_id"]

        assert judge(url, run_id, 1, headers=bob).status_code == 404
        assert judge(url, "no-such-run", 1, headers=bob).status_code == 404
        assert judge(url, run_id, 1, headers=bob, user_id="ada").status_code == 403
        assert judge(url, run_id, 1, headers=ada).status_code == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"run_id": "r", "key": "stars"}, "score"),
        ({"run_id": "r", "key": "", "score": 1}, "key"),
        ({"run_id": "r", "key": "a\nb", "score": 1}, "key"),
        ({"run_id": "r", "key": "stars", "score": {"a": 1}}, "score"),
        ({"run_id": "r", "key": "stars", "score": "x" * 501}, "score"),
        ({"run_id": "r", "key": "stars", "score": 1, "comment": "x" * 5001}, "comment"),
        ({"run_id": "r", "key": "stars", "score": 1, "stars": 2}, "stars"),
        ({"key": "stars", "score": 1}, "run_id"),
    ],
)
def test_bad_feedback_is_refused(url: str, body: dict[str, Any], words: str) -> None:
    """What is no judgement is a 422 with a sentence."""
    response = httpx.post(f"{url}/feedback", json=body)

    assert (response.status_code, words in response.json()["detail"]) == (422, True)


def test_numbers_that_are_none_are_refused(url: str) -> None:
    """Infinity and NaN are no scores."""
    for number in ("NaN", "Infinity"):
        content = f'{{"run_id": "r", "key": "stars", "score": {number}}}'
        assert httpx.post(f"{url}/feedback", content=content).status_code == 422


def test_feedback_on_a_turn_that_was_not_sampled(
    server: Langfuse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What sampling left out has no trace: the answer says so, and no score points at nothing."""
    monkeypatch.setenv("LANGFUSE_SAMPLING_RATE", "0")
    with recording(load_settings()), service(tmp_path) as url:
        said = AgentClient(url).invoke("Hello")
        answer = judge(url, said.run_id, 1).json()

    assert answer["places"]["langfuse"].startswith("skipped: sampling left this turn out")
    assert server.asked == []


def test_feedback_with_tracing_off(tmp_path: Path) -> None:
    """With tracing off feedback is answered, and says that it went nowhere."""
    with service(tmp_path) as url:
        run_id = AgentClient(url).invoke("Hello").run_id
        answer = judge(url, run_id, 1).json()

    assert (answer["status"], answer["places"]) == ("success", {"langfuse": "skipped: tracing is off"})


def test_feedback_is_traced(url: str, spans: Recorded) -> None:
    """Giving feedback is a trace of its own that names the thread, and its delivery adds nothing to it."""
    said = AgentClient(url).invoke("Hello", thread_id="t-1")
    spans.settled()
    spans.clear()
    judge(url, said.run_id, 1)

    thread = "langfuse.trace.metadata.thread"
    assert spans.tree([thread]).splitlines() == [
        "POST CLIENT",
        f"  POST /feedback SERVER {thread}=t-1",
        f"    feedback EVALUATOR {thread}=t-1",
    ]


def test_feedback_outlives_backend_and_service(server: Langfuse, tmp_path: Path) -> None:
    """Feedback given while the backend is down survives a SIGKILL of the service, and its figures show it waiting."""
    env = {**server.env, "DATA_DIR": str(tmp_path), "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool")}
    with own_process(env) as (url, process):
        said = AgentClient(url, timeout=60).invoke("Hello")
        server.status = 503
        answer = judge(url, said.run_id, 1).json()
        scores = httpx.get(f"{url}/health/telemetry").json()["scores"]["langfuse"]
        os.kill(process.popen.pid, signal.SIGKILL)
        process.popen.wait(10)
    server.status = None

    assert answer["places"] == {"langfuse": "queued"}
    assert scores["waiting"] == 1
    assert server.scores(said.trace_id or "") == []
    with own_process(env):
        until(lambda: server.scores(said.trace_id or ""))


@contextmanager
def own_process(env: dict[str, str]) -> Iterator[tuple[str, Process]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with start([sys.executable, "-m", "app"], {**env, "PORT": str(port)}, f"{url}/health") as process:
        yield url, process


def test_feedback_brings_a_dropped_turn_back(server: Langfuse, tmp_path: Path) -> None:
    """An ordinary turn that was not kept is brought back by feedback within the hold time, whole, scored, linked."""
    env = {**server.env, "DATA_DIR": str(tmp_path), "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool")}
    with own_process({**env, "TELEMETRY_KEEP_RATE": "0"}) as (url, _):
        client = AgentClient(url, timeout=60)
        said, other = (client.invoke("Hello", thread_id="t-1") for _ in range(2))
        until(lambda: client.get_history("t-1").trace_urls == {}, 60)
        answer = judge(url, said.run_id, 1).json()
        assert set(client.get_history("t-1").trace_urls) == {said.trace_id}
        until(lambda: {"turn", "DemoModel"} <= observations(server, said.trace_id))
        until(lambda: server.scores(said.trace_id or ""))

        assert answer["kept"]
        assert answer["places"]["langfuse"] in ("sent", "queued")
        assert observations(server, other.trace_id) == set()


def test_feedback_that_comes_too_late_says_so(server: Langfuse, tmp_path: Path) -> None:
    """Once a dropped turn's spans are gone a vote is kept with its thread, scores nothing, and gives no link."""
    env = {**server.env, "DATA_DIR": str(tmp_path), "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool")}
    with own_process({**env, "TELEMETRY_KEEP_RATE": "0", "TELEMETRY_HOLD_S": "4", "DEMO_PACE_S": "0"}) as (url, _):
        client = AgentClient(url, timeout=60)
        said = client.invoke("Hello", thread_id="t-1")
        until(lambda: httpx.get(f"{url}/health/telemetry").json()["process"]["dropped"].get("not kept"))
        answer = judge(url, said.run_id, 1).json()
        history = client.get_history("t-1")

    assert (answer["trace_id"], answer["kept"]) == (said.trace_id, False)
    assert answer["places"]["langfuse"].startswith("skipped: ")
    assert (history.trace_urls, [vote.score for vote in history.turns[0].votes]) == ({}, [1])
    assert server.scores(said.trace_id or "") == []


def observations(server: Langfuse, trace_id: str | None) -> set[str]:
    found = server.get("/api/public/v2/observations", traceId=trace_id, fields="core,basic")
    return {each["name"] for each in found["data"]}
