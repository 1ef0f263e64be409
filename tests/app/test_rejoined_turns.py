"""Turns that outlive their readers: who comes back gets each event that he has not seen, once and in order."""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from app import recording
from app.client import AgentClient, Refused
from app.database import turn_events
from app.schema import EndEvent, ErrorEvent, MessageEvent, RunEvent, StreamEvent, TokenEvent
from telemetry.testing.receiver import Receiver
from tests.app.storage import Storage
from tests.background import api, called, held
from tests.chaos.proxy import proxy
from tests.nginx import nginx
from tests.postgres import postgres
from tests.processes import until
from tests.service import service

STORY = "Tell me a story of 60 words"
LONG_STORY = "Tell me a story of 400 words"
LOST = "The service ended before the turn did."
Event = tuple[int, dict[str, Any]]


@contextmanager
def reading(url: str, body: dict[str, Any]) -> Iterator[Iterator[Event]]:
    """The events of a turn that continues without its reader, with their numbers."""
    asked = {"on_disconnect": "continue", "thread_id": "t-1", **body}
    with httpx.Client(timeout=60) as http, connect_sse(http, "POST", f"{url}/stream", json=asked) as source:
        yield ((int(sse.id), json.loads(sse.data)) for sse in source.iter_sse() if sse.data not in ("", "[DONE]"))


def leave_after(url: str, number: int, **body: Any) -> list[Event]:
    """The first events of a turn whose reader leaves after so many."""
    with reading(url, {"message": STORY, **body}) as events:
        return [next(events) for _ in range(number)]


def rejoin(url: str, run_id: str, after: int, how: str = "header") -> list[Event]:
    """The events of the run after this one, to its end."""
    params, headers = ({"after": after}, {}) if how == "query" else ({}, {"Last-Event-ID": str(after)})
    with (
        httpx.Client(timeout=60) as http,
        connect_sse(http, "GET", f"{url}/runs/{run_id}/events", params=params, headers=headers) as source,
    ):
        *events, done = [sse for sse in source.iter_sse() if sse.data]
    assert done.data == "[DONE]"
    return [(int(sse.id), json.loads(sse.data)) for sse in events]


def run_of(events: Sequence[Event]) -> str:
    return events[0][1]["run_id"]


def assert_whole(events: Sequence[Event]) -> None:
    """No event is missing, there twice or out of order, and the last one is the end."""
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert [event["type"] for _, event in events].index("end") == len(events) - 1
    said = "".join(event["content"] for _, event in events if event["type"] == "token")
    [message] = [event["content"]["content"] for _, event in events if event["type"] == "message"]
    assert said.startswith(message)


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_turn_goes_on_without_its_reader(storage: Storage, how: str) -> None:
    """Who rejoins it, during it and after its end, gets what follows the last event that he has seen."""
    with storage.service(DEMO_PACE_S=0.03) as url:
        seen = leave_after(url, 10)
        during = rejoin(url, run_of(seen), 10, how)
        history = AgentClient(url).get_history("t-1")
        after, none = rejoin(url, run_of(seen), 0, how), rejoin(url, run_of(seen), len(seen + during), how)
    assert_whole([*seen, *during])
    assert (after, none) == ([*seen, *during], [])
    assert [turn.status for turn in history.turns] == [during[-1][1]["status"]] == ["completed"]


def test_a_reader_that_stays_gets_the_same(tmp_path: Path) -> None:
    """Its events are those that are stored, and arrive while the turn goes on."""
    with service(tmp_path, DEMO_PACE_S=0.05) as url:
        with reading(url, {"message": STORY}) as events:
            first = [next(events) for _ in range(5)]
            during = AgentClient(url).get_thread("t-1").status
            seen = [*first, *events]
        stored = rejoin(url, run_of(seen), 0)
    assert_whole(seen)
    assert (during, stored) == ("running", seen)


def test_a_lost_reader_ends_other_turns(tmp_path: Path) -> None:
    """Without being asked to continue, a turn is cancelled with its reader, and its events are not stored."""
    with service(tmp_path, DEMO_PACE_S=0.05) as url:
        client = AgentClient(url)
        events = client.stream(STORY, thread_id="t-1")
        run = next(events)
        assert isinstance(run, RunEvent)
        next(events)
        events.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator
        until(lambda: client.get_thread("t-1").status == "cancelled")
        with pytest.raises(Refused, match="on_disconnect=continue") as refused:
            list(client.follow(run.run_id))
    assert refused.value.status == 404


def test_a_turn_without_a_reader_can_be_cancelled(storage: Storage) -> None:
    """Its stored events end with that."""
    with storage.service(DEMO_PACE_S=0.1) as url:
        seen = leave_after(url, 5)
        AgentClient(url).cancel(run_of(seen))
        rest = rejoin(url, run_of(seen), 5)
    assert (rest[-1][1]["type"], rest[-1][1]["status"]) == ("end", "cancelled")
    assert [number for number, _ in [*seen, *rest]] == list(range(1, len(seen + rest) + 1))


def test_events_are_those_of_their_user(tmp_path: Path) -> None:
    """Another user's turn is not found."""
    with service(tmp_path) as url:
        seen = leave_after(url, 2, user_id="ada")
        run_id = run_of(seen)
        statuses = [
            httpx.get(f"{url}/runs/{run_id}/events", headers={"X-User-Id": user}, timeout=60).status_code
            for user in ("ada", "bob")
        ]
    assert statuses == [200, 404]


def test_a_number_that_was_never_sent_ends_with_the_turn(tmp_path: Path) -> None:
    """A reader that names an event beyond the last one gets what follows, and the end."""
    with service(tmp_path, DEMO_PACE_S=0.03) as url:
        seen = leave_after(url, 5)
        assert rejoin(url, run_of(seen), 1_000_000)[-1][1]["type"] == "end"


def test_what_is_stored_of_a_turn_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that, pieces of messages have no number and are for the reader that is there; whole messages are kept."""
    monkeypatch.setattr(recording, "MAX_BYTES", 2_000)
    with service(tmp_path, DEMO_PACE_S=0.01) as url:
        body = {"message": STORY, "on_disconnect": "continue", "thread_id": "t-1"}
        with httpx.Client(timeout=60) as http, connect_sse(http, "POST", f"{url}/stream", json=body) as source:
            received = [sse for sse in source.iter_sse() if sse.data not in ("", "[DONE]")]
        bodies = [json.loads(sse.data) for sse in received]
        stored = rejoin(url, bodies[0]["run_id"], 0)
    assert sum(body["type"] == "token" for body in bodies) > 50
    assert sum(event["type"] == "token" for _, event in stored) < 20
    assert [event["type"] for _, event in stored[-2:]] == ["message", "end"]
    # An event without an id leaves the last one as it is.
    assert [int(sse.id) for sse in received] == sorted(int(sse.id) for sse in received)


def test_stored_events_are_deleted_after_a_while(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a turn that has ended long ago go with the next turn, and no others."""
    with storage.service() as url:
        client = AgentClient(url)
        first, second = (run_id_of([*client.stream("Hello", on_disconnect="continue")]) for _ in range(2))
        long_ago = time.time() - turn_events.KEPT_S - 1
        storage.rows(f"update turn_events set at = {long_ago} where run_id = '{first}'")
        list(client.stream("Hello", on_disconnect="continue"))
        until(lambda: storage.rows("select count(distinct run_id) from turn_events") == [(2,)])
        assert list(client.follow(second))
        with pytest.raises(Refused, match="hour"):
            list(client.follow(first))


def test_the_next_process_ends_the_events(tmp_path: Path) -> None:
    """After a kill, what was stored can be read on a restarted service, with the failure and the end."""
    env = {"DEMO_PACE_S": "0.05"}
    with Receiver() as receiver:
        with api(tmp_path, receiver, env) as first:
            seen = leave_after(first.url, 40, message=LONG_STORY)
            first.kill()
        with api(tmp_path, receiver, env) as second:
            rest = rejoin(second.url, run_of(seen), 40)
            history = AgentClient(second.url).get_history("t-1")
    assert_ended_as_lost(seen, rest, history.messages[-1].content)


def checkpoints(folder: Path) -> int:
    """How many are stored."""
    with closing(sqlite3.connect(folder / "checkpoints.db")) as database:
        return database.execute("select count(*) from checkpoints").fetchone()[0]


@pytest.mark.parametrize("lost", ["checkpoints", "events"])
def test_reader_and_history_agree_about_a_killed_turn(tmp_path: Path, lost: str) -> None:
    """What one of them has, and the process could not store for the other, both have afterwards."""
    with Receiver() as receiver:
        with held(tmp_path, "3+3"), api(tmp_path, receiver) as first:
            seen = leave_after(f"{first.url}/steps", 2, message="what is 3+3")
            until(lambda: called(tmp_path))
            # LangGraph stores the checkpoint of a step while the next one runs.
            until(lambda: checkpoints(tmp_path) == 3)
            first.kill()
        file, statement = {
            "checkpoints": ("checkpoints.db", "delete from checkpoints"),
            "events": ("service.db", "delete from turn_events where number > 1"),
        }[lost]
        with closing(sqlite3.connect(tmp_path / file)) as database, database:
            database.execute(statement)
        with api(tmp_path, receiver) as second:
            rest = rejoin(second.url, run_of(seen), 1)
            history = AgentClient(second.url).get_history("t-1")
    told = [event["content"] for _, event in rest if event["type"] == "message"]
    # The call that was under way is answered as cancelled.
    assert [(each["type"], len(each["tool_calls"])) for each in told] == [("ai", 1), ("tool", 0)]
    assert [(message.type, message.run_id) for message in history.messages] == [
        ("human", run_of(seen)),
        ("ai", run_of(seen)),
        ("tool", run_of(seen)),
    ]
    assert (rest[-2][1]["message"], rest[-1][1]["status"]) == (LOST, "failed")


def assert_ended_as_lost(seen: Sequence[Event], rest: Sequence[Event], answer: str) -> None:
    """The reader has each event once, then the partial answer as the history has it, the failure and the end."""
    *_, message, error, end = rest
    assert [number for number, _ in [*seen, *rest]] == list(range(1, len(seen) + len(rest) + 1))
    assert (error[1]["message"], end[1]["status"]) == (LOST, "failed")
    assert message[1]["content"]["content"] == answer
    said = "".join(event["content"] for _, event in [*seen, *rest] if event["type"] == "token")
    # What was said and not yet stored was not sent.
    assert answer.startswith(said)
    assert said


def test_another_replica_ends_the_events_behind_nginx(tmp_path: Path) -> None:
    """A replica is killed in mid-stream: its reader rejoins through a stock nginx, and another one tells the end."""
    with postgres() as database, Receiver() as receiver:
        env = {"DEMO_PACE_S": "0.05", "DATABASE_URL": database}
        with (
            api(tmp_path / "a", receiver, env) as first,
            api(tmp_path / "b", receiver, env) as second,
            nginx(tmp_path, first.url, "") as only_first,
            nginx(tmp_path / "b", [first.url, second.url], "") as both,
        ):
            seen: list[Event] = []
            with suppress(httpx.TransportError), reading(only_first, {"message": LONG_STORY}) as events:
                for event in events:
                    seen.append(event)
                    if len(seen) == 40:
                        first.kill()
            rest = rejoin(both, run_of(seen), seen[-1][0])
            history = AgentClient(both).get_history("t-1")
            again = rejoin(both, run_of(seen), 0)
    assert_ended_as_lost(seen, rest, history.messages[-1].content)
    assert again == [*seen, *rest]
    assert [(turn.status, turn.error) for turn in history.turns] == [("failed", LOST)]


def test_any_replica_shows_a_turn_that_goes_on(tmp_path: Path) -> None:
    """Events of a turn that another process executes arrive behind nginx while they happen."""
    with postgres() as database, Receiver() as receiver:
        env = {"DEMO_PACE_S": "0.05", "DATABASE_URL": database}
        with (
            api(tmp_path / "a", receiver, env) as first,
            api(tmp_path / "b", receiver, env) as second,
            nginx(tmp_path, second.url, "") as front,
        ):
            seen = leave_after(first.url, 10, message=LONG_STORY)
            url, headers = f"{front}/runs/{run_of(seen)}/events", {"Last-Event-ID": "10"}
            with httpx.Client(timeout=60) as http, connect_sse(http, "GET", url, headers=headers) as source:
                received = source.iter_sse()
                rest = [next(sse for sse in received if sse.data)]
                status = AgentClient(first.url).get_thread("t-1").status
                rest += [sse for sse in received if sse.data not in ("", "[DONE]")]
    assert status == "running"
    assert_whole([*seen, *((int(sse.id), json.loads(sse.data)) for sse in rest)])


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_the_client_rejoins(tmp_path: Path, way: str) -> None:
    """Where its connection breaks, the client goes on with the next event, as if nothing had happened."""
    with service(tmp_path, DEMO_PACE_S=0.03) as direct, closing_proxy(direct) as (url, break_off):
        client, events = AgentClient(url), list[StreamEvent]()
        if way == "sync":
            for event in client.stream(STORY, thread_id="t-1", on_disconnect="continue"):
                events.append(event)
                if len(events) in (5, 20, 40):
                    break_off()
        else:
            async for event in client.astream(STORY, thread_id="t-1", on_disconnect="continue"):
                events.append(event)
                if len(events) in (5, 20, 40):
                    break_off()
        stored = list(AgentClient(direct).follow(run_id_of(events)))
    assert events == stored
    assert isinstance(events[-1], EndEvent)
    assert events[-1].status == "completed"
    assert "".join(event.content for event in events if isinstance(event, TokenEvent))
    assert sum(isinstance(event, MessageEvent) for event in events) == 1
    assert not any(isinstance(event, ErrorEvent) for event in events)


def run_id_of(events: Sequence[StreamEvent]) -> str:
    assert isinstance(events[0], RunEvent)
    return events[0].run_id


@contextmanager
def closing_proxy(url: str) -> Iterator[tuple[str, Any]]:
    """An address that leads there, and a function that breaks every connection over it."""
    with proxy(int(url.rpartition(":")[2])) as passing:
        yield f"http://127.0.0.1:{passing.port}", passing.mend
