"""What callers are told while the database cannot be used."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from app.client import AgentClient
from app.schema import EndEvent
from telemetry.testing import Recorded
from tests.processes import until
from tests.service import service


def test_a_locked_database_is_a_503(tmp_path: Path) -> None:
    """Callers are told to try again, and when; once it is free they are served."""
    message = {"message": "Hello"}
    with service(tmp_path) as url:
        with closing(sqlite3.connect(tmp_path / "service.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            answer = httpx.post(f"{url}/invoke", json=message, timeout=60)
            assert httpx.get(f"{url}/health").is_success
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "try again" in answer.json()["detail"]
        assert httpx.post(f"{url}/invoke", json=message, timeout=60).is_success


def test_a_turn_ends_as_it_was_told_to_end(tmp_path: Path, spans: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is locked while it ends: its event says that this is not stored yet, and it is stored later."""
    monkeypatch.setattr(sys.modules["telemetry.turn"], "GRACE_S", 0.5)
    with service(tmp_path, DEMO_PACE_S=0.05) as url:
        client = AgentClient(url)
        events = client.stream("/fail-after 5 tell me a story", thread_id="t-1")
        next(events)
        with closing(sqlite3.connect(tmp_path / "service.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            *_, end = events
            assert client.get_thread("t-1").status == "running"
        until(lambda: client.get_thread("t-1").status != "running")
        [turn] = client.get_history("t-1").turns
        said = client.get_history("t-1").messages[-1]

    assert isinstance(end, EndEvent)
    assert (end.status, end.stored, turn.status) == ("failed", False, "failed")
    assert (said.type, said.response_metadata["finish_reason"]) == ("ai", "stopped")
    [span] = [span for span in spans.settled() if span.name == "turn"]
    assert (span.attributes or {})["turn.status"] == "failed"


def test_a_start_ends_the_turns_of_a_process_that_died(tmp_path: Path, spans: Recorded) -> None:
    """In the history and in the list of threads."""
    with service(tmp_path) as url:
        run_id = AgentClient(url).invoke("Hello", thread_id="t-1").run_id
    spans.settled()
    with closing(sqlite3.connect(tmp_path / "service.db")) as other, other:
        other.execute("update runs set status = 'running', ended = null")
    with service(tmp_path) as url:
        client = AgentClient(url)
        [turn] = client.get_history("t-1").turns
        assert (turn.run_id, turn.status, turn.error) == (run_id, "failed", "The service ended before the turn did.")
        assert client.get_thread("t-1").status == "failed"


def test_a_damaged_table_closes_no_connection(tmp_path: Path) -> None:
    """Each of many requests on one connection is answered."""
    with service(tmp_path) as url, httpx.Client(base_url=url) as http:
        assert http.get("/threads").is_success
        with closing(sqlite3.connect(tmp_path / "service.db")) as other:
            other.execute("alter table threads rename to others")
        assert {http.get("/threads").status_code for _ in range(20)} == {500}
