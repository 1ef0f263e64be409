"""Runs outlive their request, their failures and their process."""

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest

import telemetry
from app.client import AgentClient
from telemetry.testing import Recorded, span_tree
from telemetry.testing.receiver import Receiver
from tests.background import Api, answered, api, called, held
from tests.processes import until
from tests.service import service

pytest.importorskip("dbos", reason="background runs need DBOS")

SUMS = "what is 1+1 and 2+2 and 3+3"
RIGHT = "The calculator tool says: 2\nThe calculator tool says: 4\nThe calculator tool says: 6"


@pytest.fixture
def one(tmp_path: Path, receiver: Receiver) -> Iterator[Api]:
    with api(tmp_path, receiver) as running:
        yield running


def last_answer(running: Api, run_id: str) -> str:
    bodies = [json.loads(body) for _, body in running.events(run_id)]
    return [b["content"]["content"] for b in bodies if b["type"] == "message" and b["content"]["type"] == "ai"][-1]


def test_its_tree(spans: Recorded, tmp_path: Path) -> None:
    """The first attempt belongs to the request's trace, with its signs of life: queued, running, completed."""
    with service(tmp_path, HEARTBEAT_S=60) as url:
        telemetry.trust(url)
        run = httpx.post(f"{url}/chatbot/runs", json={"message": "What is 12*34?", "user_id": "ada"}, timeout=20).json()
        with telemetry.suppress_instrumentation():
            until(lambda: httpx.get(f"{url}/runs/{run['run_id']}").json()["status"] == "completed")

    assert run["status"] == "queued"
    assert (
        spans.tree(["status"])
        == dedent("""
        POST CLIENT
          POST /{agent_id}/runs SERVER
            heartbeat status=queued
            turn AGENT
              chatbot
                model
                  DemoModel LLM
                  tools_condition
                tools
                  calculator TOOL
                model
                  DemoModel LLM
                  tools_condition
              heartbeat status=running
              heartbeat status=completed
    """).strip()
    )
    stamps: list[dict[str, Any]] = [dict(span.attributes or {}) for span in spans.settled()]
    of_run = [each for each in stamps if each.get("langfuse.trace.metadata.run") == run["run_id"]]
    assert {each["session.id"] for each in of_run} == {run["thread_id"]}


def test_a_run_whose_trace_was_dropped_shows_no_link(tmp_path: Path, receiver: Receiver) -> None:
    """Where an ordinary run is not kept its link goes with its end, and comes with feedback; an error keeps both."""
    env = {"TELEMETRY_KEEP_RATE": "0", "TRACE_URL": "http://viewer.test/{trace_id}"}
    with api(tmp_path, receiver, env) as running:
        run = running.submit(SUMS)
        assert run["trace_url"] == f"http://viewer.test/{run['trace_id']}"
        over = running.over(run["run_id"])
        end = json.loads(running.events(run["run_id"])[-1][1])
        assert (over["status"], over["trace_url"], end["kept"]) == ("completed", None, False)

        vote = {"run_id": run["run_id"], "key": "stars", "score": 1, "user_id": "ada"}
        assert httpx.post(f"{running.url}/feedback", json=vote, timeout=30).status_code == 200
        assert running.run(run["run_id"])["trace_url"] == f"http://viewer.test/{run['trace_id']}"

        unlucky = running.over(running.submit("what is 13+13")["run_id"])
        assert unlucky["trace_url"] == f"http://viewer.test/{unlucky['trace_id']}"


def test_a_slow_start_of_the_engine_holds_nobody_up(tmp_path: Path, one: Api) -> None:
    """While the engine waits for its database the service answers others; the run is accepted once it has it."""
    lock = sqlite3.connect(tmp_path / "engine.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(one.submit, SUMS)
        try:
            until(lambda: _signed(tmp_path))
            assert httpx.get(f"{one.url}/health", timeout=30).is_success
            assert not asked.done()
        finally:
            lock.close()
        assert one.over(asked.result()["run_id"])["status"] == "completed"


def _signed(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / "service.db")) as records:
        return bool(records.execute("select 1 from background_executors").fetchall())


def test_its_events_can_be_taken_up_again(one: Api) -> None:
    """Events have numbers of our own; whoever names the last one gets what follows, whenever that was."""
    run = one.submit(SUMS)
    whole = one.events(run["run_id"])
    rest = one.events(run["run_id"], after=whole[1][0])

    assert [number for number, _ in whole] == list(range(1, len(whole) + 1))
    assert rest == whole[2:]
    assert json.loads(whole[0][1])["type"] == "run"
    end = json.loads(whole[-1][1])
    assert (end["type"], end["status"], end["kept"]) == ("end", "completed", True)
    assert last_answer(one, run["run_id"]) == RIGHT


def test_a_run_goes_on_after_a_kill(tmp_path: Path, receiver: Receiver) -> None:
    """Killed in its tools, it goes on where it was: one final state, the right answer, each attempt a closed trace."""
    with held(tmp_path, "3+3"), api(tmp_path, receiver, {"OTEL_SERVICE_NAME": "first"}) as first:
        run = first.submit(SUMS)
        until(lambda: len(called(tmp_path)) == 3 and len(answered(tmp_path)) == 2)
        first.kill()
    kept, before = answered(tmp_path), len(called(tmp_path))
    with api(tmp_path, receiver) as second:
        done = second.over(run["run_id"])
        answer = last_answer(second, run["run_id"])

    assert (done["status"], answer) == ("completed", RIGHT)
    assert not kept & {line.split()[0] for line in called(tmp_path)[before:]}
    assert len(done["trace_ids"]) == 2
    turns = [span for span in receiver.spans if span.name == "turn"]
    assert [(turn.attributes["turn.status"], turn.trace_id) for turn in sorted(turns, key=lambda t: t.start)] == [
        ("lost", done["trace_ids"][0]),
        ("completed", done["trace_ids"][1]),
    ]
    lost, again = sorted(turns, key=lambda t: t.start)
    assert [link.trace_id for link in again.links] == [lost.trace_id]
    assert lost.attributes["session.id"] == again.attributes["session.id"] == run["thread_id"]
    assert "^" not in span_tree([span for span in receiver.spans if span.trace_id == again.trace_id])


def test_what_was_not_told_is_told(tmp_path: Path, receiver: Receiver) -> None:
    """A process that dies between the last checkpoint and its events leaves nothing out: the next one tells it."""
    with api(tmp_path, receiver) as first:
        run = first.submit(SUMS)
        first.over(run["run_id"])
    with sqlite3.connect(tmp_path / "service.db") as connection:
        connection.execute("delete from background_events where number > 3")
        connection.execute("update background_runs set status = 'queued', ended = null")
    for file in tmp_path.glob("engine.db*"):
        file.unlink()
    with api(tmp_path, receiver) as second:
        assert second.over(run["run_id"])["status"] == "completed"
        events = [json.loads(body) for _, body in second.events(run["run_id"])]

    said = [event["content"] for event in events if event["type"] == "message"]
    assert [message["type"] for message in said] == ["ai", "tool", "tool", "tool", "ai"]
    assert said[-1]["content"] == RIGHT
    assert len(called(tmp_path)) == 3


def test_a_stopped_service_goes_on_later(tmp_path: Path, receiver: Receiver) -> None:
    """SIGTERM ends the attempt, not the run."""
    with held(tmp_path, "3+3"), api(tmp_path, receiver) as first:
        run = first.submit(SUMS)
        until(lambda: called(tmp_path))
        first.process.stop()
    with api(tmp_path, receiver) as second:
        done = second.over(run["run_id"])

    assert done["status"] == "completed"
    turns = [span for span in receiver.spans if span.name == "turn"]
    assert sorted(str(turn.attributes["turn.status"]) for turn in turns) == ["cancelled", "completed"]


def test_it_can_be_watched(tmp_path: Path, receiver: Receiver) -> None:
    """Signs of life and the task's progress are at the backend while the run is under way, soon after its start."""
    with api(tmp_path, receiver, {"HEARTBEAT_S": "20"}) as one:
        run = one.submit("work for 600 seconds", agent="bg-task")
        until(lambda: one.run(run["run_id"])["status"] == "running")
        until(lambda: {"heartbeat", "started", "progress"} <= {span.name for span in receiver.spans})

        assert one.run(run["run_id"])["status"] == "running"
        assert not [span for span in receiver.spans if span.name == "turn"]
    assert {span.trace_id for span in receiver.spans if span.name == "progress"} == {run["trace_id"]}


def test_cancel(one: Api, receiver: Receiver) -> None:
    """A run that is cancelled ends so in a moment, its task too, and its trace is whole."""
    run = one.submit("work for 60 seconds", agent="bg-task")
    until(lambda: "started" in {span.name for span in receiver.spans})
    assert httpx.post(f"{one.url}/runs/{run['run_id']}/cancel", timeout=20).json()["status"] == "cancelling"

    assert one.over(run["run_id"])["status"] == "cancelled"
    until(lambda: "turn" in {span.name for span in receiver.spans}, 60)
    assert "^" not in span_tree(receiver.spans)
    (task,) = [span for span in receiver.spans if span.name == "task long work"]
    assert task.attributes["task.result"] == "cancelled"
    assert httpx.post(f"{one.url}/runs/{run['run_id']}/cancel", timeout=20).json()["status"] == "cancelled"


def test_cancel_at_any_moment(tmp_path: Path, receiver: Receiver) -> None:
    """Whenever it comes, also between two tries of an agent that fails, a cancelled run ends in a moment, quietly."""
    told = []
    with api(tmp_path, receiver, {"RETRY_WAIT_S": "600"}) as one:
        waiting = one.submit("/fail", agent="bg-task", user="grace")["run_id"]
        for number in range(12):
            run_id = one.submit("/fail" if number % 4 == 3 else "work for 600 seconds", agent="bg-task")["run_id"]
            time.sleep(number * 0.07)
            told.append(httpx.post(f"{one.url}/runs/{run_id}/cancel", timeout=60).json()["run_id"])

        assert {one.over(run_id)["status"] for run_id in told} == {"cancelled"}
        assert len(one.run(waiting)["trace_ids"]) == 1  # seconds later it has not been tried again
        httpx.post(f"{one.url}/runs/{waiting}/cancel", timeout=60)
        assert one.over(waiting)["status"] == "cancelled"
        assert "Traceback" not in one.process.log


@pytest.mark.parametrize(("file", "change"), [
    ("engine.db", "update workflow_status set status = 'CANCELLED'"),
    ("service.db", "update background_runs set status = 'cancelling'"),
])  # fmt: skip
def test_what_was_cancelled_when_nobody_was_there(tmp_path: Path, receiver: Receiver, file: str, change: str) -> None:
    """A run that was stopped while its process was dead ends as cancelled, its attempt closed as lost."""
    with api(tmp_path, receiver) as first:
        run = first.submit("work for 60 seconds", agent="bg-task")
        until(lambda: "started" in {span.name for span in receiver.spans}, 60)
        first.kill()
    with sqlite3.connect(tmp_path / file) as connection:
        connection.execute(change)
    with api(tmp_path, receiver) as second:
        done = second.over(run["run_id"])

    assert (done["status"], len(done["trace_ids"])) == ("cancelled", 1)
    assert [s.attributes["turn.status"] for s in receiver.spans if s.name == "turn"] == ["lost"]


def test_what_cannot_even_be_begun_fails(one: Api, tmp_path: Path) -> None:
    """A run whose attempts the database refuses ends as failed all the same, with the reason."""
    one.over(one.submit(SUMS)["run_id"])
    refusing = "begin select raise(abort, 'no attempts today'); end"
    with sqlite3.connect(tmp_path / "service.db") as connection:
        connection.execute(f"create trigger refuse before insert on background_attempts {refusing}")
    run = one.over(one.submit(SUMS)["run_id"])

    assert (run["status"], "no attempts today" in run["error"]) == ("failed", True)


def test_a_failing_agent_is_tried_again(one: Api) -> None:
    """It fails three times, each a trace of its own, and then for good, with the reason."""
    run = one.over(one.submit("/fail", agent="chatbot")["run_id"])

    assert (run["status"], len(run["trace_ids"])) == ("failed", 3)
    assert run["error"].startswith("DemoError: ")
    assert one.process.log.count("is retried: DemoError: ") == 2


def test_what_may_not_be_done_twice_is_asked(tmp_path: Path, receiver: Receiver) -> None:
    """A call that was begun and not answered is not repeated: the run waits for a person."""
    with held(tmp_path, "1+1"), api(tmp_path, receiver) as first:
        run = first.submit("what is 1+1", agent="careful")
        until(lambda: called(tmp_path))
        first.kill()
    with api(tmp_path, receiver) as second:
        waiting = second.over(run["run_id"])
        asked = [json.loads(body) for _, body in second.events(run["run_id"])]
        answer = {"message": "no", "thread_id": run["thread_id"], "user_id": "ada"}
        resumed = httpx.post(f"{second.url}/careful/runs", json=answer, timeout=20).json()
        done = second.over(resumed["run_id"])

    assert waiting["status"] == "waiting"
    assert "Shall I do it again?" in next(event for event in asked if event["type"] == "interrupt")["value"]["question"]
    assert done["status"] == "completed"
    assert len(called(tmp_path)) == 1


@pytest.mark.parametrize(("path", "status", "words"), [
    ("/runs/nowhere", 404, "There is no run nowhere."),
    ("/runs/nowhere/events", 404, "There is no run nowhere."),
    ("/runs?most=0", 422, "most"),
])  # fmt: skip
def test_bad_input(tmp_path: Path, spans: Recorded, path: str, status: int, words: str) -> None:
    """What is not there is a 404, what cannot be a 422, each with a sentence."""
    with service(tmp_path) as url:
        answer = httpx.get(url + path)

    assert (answer.status_code, words in answer.json()["detail"]) == (status, True)


def test_an_event_that_no_database_can_count_to(tmp_path: Path, spans: Recorded) -> None:
    """A Last-Event-ID beyond any number is a 422 before the stream begins."""
    with service(tmp_path) as url:
        run_id = httpx.post(f"{url}/bg-task/runs", json={"message": "work for 1 second"}).json()["run_id"]
        answer = httpx.get(f"{url}/runs/{run_id}/events", headers={"Last-Event-ID": "9" * 20})

    assert (answer.status_code, "last-event-id" in answer.json()["detail"]) == (422, True)


def test_an_old_sqlite_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on the engine cannot use it: runs are refused with the way out, all else works."""
    monkeypatch.setattr(sys, "version_info", (3, 12))
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    with service(tmp_path) as url:
        refused = httpx.post(f"{url}/chatbot/runs", json={"message": "Hello"}, timeout=20)
        answer = AgentClient(url).invoke("What is 6 * 7?")

    assert (refused.status_code, "set DATABASE_URL" in refused.json()["detail"]) == (501, True)
    assert "42" in answer.content


def test_a_thread_has_one_run_at_a_time(one: Api, tmp_path: Path) -> None:
    """A thread with a run under way takes no second one and no turn, and nobody sees another's runs."""
    with held(tmp_path, "2+2"):
        run = one.submit("what is 1+1 and 2+2")
        again = {"message": "Hello", "thread_id": run["thread_id"], "user_id": "ada"}
        refused = httpx.post(f"{one.url}/steps/runs", json=again, timeout=20)
        turn = httpx.post(f"{one.url}/steps/invoke", json=again, timeout=20)
        stranger = httpx.get(f"{one.url}/runs/{run['run_id']}", headers={"X-User-Id": "bob"}, timeout=20)

    assert (refused.status_code, turn.status_code, stranger.status_code) == (409, 409, 404)
    assert AgentClient(one.url).info()
    one.over(run["run_id"])
