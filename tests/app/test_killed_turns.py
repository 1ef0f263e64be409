"""Turns whose process is killed in mid-stream: what had been said is kept, and everyone says how they ended."""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from app.client import AgentClient, Failed, Refused
from app.schema import RunEvent, TokenEvent
from telemetry.export.otlp import Span
from telemetry.testing.receiver import Receiver
from tests.background import Api, api
from tests.postgres import postgres
from tests.processes import until

STORY = "Tell me a story of 4000 words"
LOST = "The service ended before the turn did."
PACE = {"DEMO_PACE_S": "0.05", "TELEMETRY_SPOOL_WRITE_THROUGH": "true"}


@contextmanager
def database(kind: str) -> Iterator[Mapping[str, str]]:
    """The settings of a service that keeps its threads there."""
    if kind == "sqlite":
        yield PACE
        return
    with postgres() as url:
        yield PACE | {"DATABASE_URL": url}


def kill_in_mid_stream(service: Api, thread_id: str) -> tuple[str, str]:
    """The run of a turn whose process is killed, and what the client had heard of it."""
    run_id, heard = "", []
    events = AgentClient(service.url).stream(STORY, thread_id=thread_id)
    with suppress(Failed):
        for event in events:
            run_id = event.run_id if isinstance(event, RunEvent) else run_id
            heard += [event.content] if isinstance(event, TokenEvent) else []
            # Enough that some of it has been stored.
            if len(heard) == 80:
                service.kill()
    return run_id, "".join(heard)


def turn_spans(receiver: Receiver, run_id: str) -> list[Span]:
    return [
        span
        for span in receiver.spans
        if span.name == "turn" and span.attributes.get("langfuse.trace.metadata.run") == run_id
    ]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_a_killed_process_had_said_is_kept(kind: str, tmp_path: Path) -> None:
    """The next process shows it in the history, as failed there, in the thread's state and in the trace."""
    with Receiver() as receiver, database(kind) as env:
        with api(tmp_path, receiver, env) as first:
            AgentClient(first.url).invoke("What is 6*7?", thread_id="t-1")
            run_id, heard = kill_in_mid_stream(first, "t-1")
        with api(tmp_path, receiver, env) as second:
            client = AgentClient(second.url)
            until(lambda: client.get_thread("t-1").status == "failed", 120)
            history = client.get_history("t-1")
            turn, said = history.turns[-1], history.messages[-1]
            assert (turn.run_id, turn.status, turn.error) == (run_id, "failed", LOST)
            assert (said.type, said.run_id, said.response_metadata["finish_reason"]) == ("ai", run_id, "stopped")
            assert heard.startswith(said.content)
            assert len(said.content) > len(heard) / 3
            assert [message.content for message in history.messages if message.type == "human"][-1] == STORY
            until(lambda: turn_spans(receiver, run_id))
            # The thread goes on.
            assert client.invoke("What is 12*34?", thread_id="t-1").content == "The calculator tool says: 408"
            assert len(client.get_history("t-1").messages) > len(history.messages)

    [span] = turn_spans(receiver, run_id)
    assert (span.attributes["turn.status"], span.attributes["langfuse.observation.status_message"]) == ("failed", LOST)
    assert span.attributes["langfuse.observation.output"] == said.content
    trace = [each for each in receiver.spans if each.trace_id == span.trace_id]
    assert {each.parent_id for each in trace} - {None} <= {each.span_id for each in trace}
    assert [each.name for each in trace if each.parent_id is None] == ["turn"]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_next_message_ends_a_killed_turn(kind: str, tmp_path: Path) -> None:
    """It need not wait until somebody looks for turns of dead processes; the partial answer is before it."""
    with Receiver() as receiver, database(kind) as env:
        with api(tmp_path, receiver, env) as first:
            run_id, heard = kill_in_mid_stream(first, "t-1")
        with api(tmp_path, receiver, env) as second:
            client = AgentClient(second.url)
            until(lambda: succeeds(client))
            history = client.get_history("t-1")

    [question, partial, *_] = history.messages
    assert (question.content, question.run_id, partial.run_id) == (STORY, run_id, run_id)
    assert heard.startswith(partial.content)
    assert [turn.status for turn in history.turns] == ["failed", "completed"]


def succeeds(client: AgentClient) -> bool:
    # Postgres notices after a moment that the process has gone.
    try:
        return bool(client.invoke("Hello", thread_id="t-1").content)
    except Refused:
        return False


def test_a_killed_turn_is_below_its_caller(tmp_path: Path) -> None:
    """The turn of a trace that another process began is a span below the caller's, which has ended by itself."""
    trace_id, caller = uuid4().hex, os.urandom(8).hex()
    headers = {"traceparent": f"00-{trace_id}-{caller}-01"}
    with Receiver() as receiver:
        with api(tmp_path, receiver, PACE) as first, httpx.Client(headers=headers, timeout=60) as http:
            body = {"message": STORY, "thread_id": "t-1"}
            with (
                suppress(httpx.TransportError),
                http.stream("POST", f"{first.url}/chatbot/stream", json=body) as answer,
            ):
                for number, _ in enumerate(answer.iter_lines()):
                    if number == 30:
                        first.kill()
        with api(tmp_path, receiver, PACE):
            until(lambda: any(span.name == "turn" for span in receiver.spans))
    [span] = [span for span in receiver.spans if span.name == "turn"]
    assert (span.trace_id, span.parent_id) == (trace_id, caller)


def test_a_question_that_was_not_stored_is_in_the_history(tmp_path: Path) -> None:
    """A turn whose process died before its first checkpoint shows at least what was asked."""
    with Receiver() as receiver:
        with api(tmp_path, receiver, PACE) as first:
            AgentClient(first.url).invoke("Hello", thread_id="t-1")
            run_id, _ = kill_in_mid_stream(first, "t-2")
        for name, statement in {
            "checkpoints.db": "delete from checkpoints where thread_id = 't-2'",
            "service.db": "update run_progress set answer = ''",
        }.items():
            with closing(sqlite3.connect(tmp_path / name)) as database, database:
                database.execute(statement)
        with api(tmp_path, receiver, PACE) as second:
            history = AgentClient(second.url).get_history("t-2")
    assert [(message.content, message.run_id) for message in history.messages] == [(STORY, run_id)]
    assert [turn.status for turn in history.turns] == ["failed"]


def test_a_span_that_was_lost_after_the_end_is_sent(tmp_path: Path) -> None:
    """A process may die when a turn's end is stored and its span is not on disk: the next one sends it."""
    with Receiver() as receiver:
        with api(tmp_path, receiver, PACE) as first:
            run_id = AgentClient(first.url).invoke("What is 6*7?", thread_id="t-1").run_id
            until(lambda: not progress(tmp_path))
        row = (run_id, "t-1", None, "The calculator tool says: 42", "2026-01-31 12:00:00.000000")
        with closing(sqlite3.connect(tmp_path / "service.db")) as database, database:
            database.execute("insert into run_progress values (?, ?, ?, ?, ?)", row)
        with api(tmp_path, receiver, PACE):
            until(lambda: len(turn_spans(receiver, run_id or "")) == 2)
            until(lambda: not progress(tmp_path))
    first_span, second_span = turn_spans(receiver, run_id or "")
    assert first_span.span_id == second_span.span_id
    assert first_span.attributes["turn.status"] == second_span.attributes["turn.status"] == "completed"
    assert second_span.attributes["langfuse.observation.output"] == "The calculator tool says: 42"


def progress(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "service.db")) as database:
        return [row[0] for row in database.execute("select run_id from run_progress")]
