"""What people take back is gone in the end, and what they say after that stays, however late the backend acts."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import telemetry
from telemetry.delivery import backoff, scores
from telemetry.delivery.scores import ScoreStore
from telemetry.scores.queue import Posted
from telemetry.settings import load_settings
from telemetry.testing import Recorded, recording
from tests.langfuse_server import Langfuse, langfuse_server
from tests.processes import ROOT, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PEOPLE = 20


WAITS = {"SETTLED_S": 4.0, "DELETE_AGAIN_S": 1.5, "FIRST_LOOK_S": 0.05, "MAX_LOOK_S": 0.2, "IDLE_S": 0.05}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Langfuse]:
    for name, seconds in WAITS.items():
        monkeypatch.setattr(scores, name, seconds)
    monkeypatch.setattr(backoff, "MAX_DELAY_S", 0.1)
    # What is asked of it happens late: scores after a delay, deletions by a queue.
    with langfuse_server(tmp_path, score_delay_s=0.15, deletion_interval_s=0.5) as late:
        for name, value in late.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TELEMETRY_SPOOL_DIR", str(tmp_path / "spool"))
        yield late


@pytest.fixture
def spans(server: Langfuse) -> Iterator[Recorded]:
    with recording(load_settings()) as recorded:
        yield recorded


def vote(value: float | None, user: str = "ada") -> Posted:
    posted = telemetry.score("mood", value, trace_id=TRACE, user_id=user)
    assert posted
    return posted


def values(server: Langfuse) -> list[float]:
    return [score["value"] for score in server.scores(TRACE)]


def test_a_vote_that_is_taken_back_at_once_is_gone(spans: Recorded, server: Langfuse) -> None:
    """The vote arrives after its deletion was accepted: it is called sent when it is gone, and not before."""
    vote(1).places(60)
    taken_back = vote(None)
    assert taken_back.places() == {"langfuse": "queued"}
    assert taken_back.places(60) == {"langfuse": "sent"}
    assert values(server) == []


def test_the_vote_after_a_vote_taken_back_stays(spans: Recorded, server: Langfuse) -> None:
    """The late deletion of the first one cannot hit it: it is a new score to the backend, and is sent at once."""
    first = vote(1)
    first.places(60)
    taken_back = vote(None)
    last = vote(0)
    assert last.places(60) == {"langfuse": "sent"}
    assert last.score.score_id != first.score.score_id == taken_back.score.score_id
    assert taken_back.places(60) == {"langfuse": "sent"}
    until(lambda: values(server) == [0])


def test_a_change_of_mind_keeps_the_id_of_its_generation(spans: Recorded, server: Langfuse) -> None:
    """Only a vote after one that was taken back is another score; taking back twice is taking back."""
    ids = [vote(value).score.score_id for value in (1, 0, None, None, 1, 0, None, 1)]
    assert ids[0] == ids[1] == ids[2] == ids[3]
    assert ids[4] == ids[5] == ids[6]
    assert len(set(ids)) == 3
    until(lambda: values(server) == [1] and telemetry.stats()["scores"]["langfuse"]["waiting"] == 0)


def test_votes_that_wait_to_be_gone_hold_up_nobody(
    spans: Recorded, server: Langfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than one round takes, and the one behind them is sent all the same."""
    monkeypatch.setattr(scores, "BATCH", 5)
    monkeypatch.setattr(scores, "SETTLED_S", 60.0)
    for n in range(12):
        vote(None, f"user-{n}")
    assert vote(1, "last").places(60) == {"langfuse": "sent"}


def test_a_generation_outlives_the_process(server: Langfuse) -> None:
    """What was taken back before a restart is remembered after it."""
    with recording(load_settings()):
        vote(1).places(60)
        first = vote(None).score.score_id
    with recording(load_settings()):
        assert vote(0).score.score_id != first
        until(lambda: values(server) == [0])


def test_a_file_of_the_release_before_is_read(tmp_path: Path) -> None:
    """A file without generations gets them, and what waits in it stays."""
    path = tmp_path / "scores.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE waiting (number INTEGER PRIMARY KEY AUTOINCREMENT, score_id TEXT NOT NULL UNIQUE,"
            " at REAL NOT NULL, body TEXT NOT NULL);"
            "CREATE TABLE refused (number INTEGER PRIMARY KEY, score_id TEXT NOT NULL, at REAL NOT NULL,"
            " reason TEXT NOT NULL, body TEXT NOT NULL);"
            "INSERT INTO waiting (score_id, at, body) VALUES ('a', 1.0, '{}')"
        )
    store = ScoreStore(path)
    store.put("b", "{}")
    assert [row.score_id for row in store.take(10)] == ["a", "b"]


def test_what_was_taken_back_long_ago_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file does not grow for ever."""
    monkeypatch.setattr(scores, "REMEMBER_S", -1.0)
    store = ScoreStore(tmp_path / "scores.sqlite")
    store.put("a", "{}", withdraws=True)
    assert store.put("a", "{}").score_id == "a"


VOTER = """
import json, sys, telemetry
from telemetry.delivery import backoff, scores
for name, seconds in json.loads(sys.argv[1]).items():
    setattr(scores, name, seconds)
backoff.MAX_DELAY_S = 0.1
telemetry.configure("votes")
print("ready", flush=True)
for line in sys.stdin:
    wish = json.loads(line)
    whose = {"metadata": {"person": wish["user"]}, "user_id": wish["user"], "trace_id": wish["trace"]}
    telemetry.score("mood", wish["value"], comment=wish["comment"], **whose)
    print("stored", flush=True)
"""


@contextmanager
def voter(server: Langfuse, folder: Path) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, **server.env, "TELEMETRY_SPOOL_DIR": str(folder / "spool"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", VOTER, json.dumps(WAITS)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.send_signal(signal.SIGKILL)


def converge(server: Langfuse, folder: Path, votes: int, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    wishes: dict[str, tuple[float | None, str | None]] = {}
    for part in range(kills + 1):
        server.status = chance.choice([None, None, 503])
        with voter(server, folder) as process:
            assert process.stdin
            assert process.stdout
            for n in range(votes // (kills + 1)):
                user = f"user-{chance.randrange(PEOPLE)}"
                value = chance.choice([1.0, 0.0, None, None])
                comment = chance.choice([None, f"because {part} {n}"]) if value is not None else None
                wish = {"user": user, "value": value, "comment": comment, "trace": TRACE}
                process.stdin.write(json.dumps(wish) + "\n")
                process.stdin.flush()
                assert process.stdout.readline() == "stored\n"
                wishes[user] = value, comment
                if chance.random() < 0.05:
                    server.status = chance.choice([None, 503])
    server.status = None
    expected = sorted((user, value, comment or "") for user, (value, comment) in wishes.items() if value is not None)

    def found() -> list[tuple[str, float, str]]:
        scores = server.scores(TRACE)
        return sorted((score["metadata"]["person"], score["value"], score["comment"] or "") for score in scores)

    with recording(load_settings()):
        until(lambda: telemetry.stats()["scores"]["langfuse"]["waiting"] == 0, 120)
        until(lambda: found() == expected, 10, lambda: f"{found()} instead of {expected}")


@pytest.mark.parametrize("seed", [1])
def test_the_last_wish_of_each_person_stands(server: Langfuse, tmp_path: Path, seed: int) -> None:
    """Votes, comments and their withdrawal, with kills and outages between them: nothing is lost, nothing left over."""
    converge(server, tmp_path, votes=120, kills=3, seed=seed)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3))
def test_the_last_wish_among_a_thousand(server: Langfuse, tmp_path: Path, seed: int) -> None:
    """The same with a thousand votes of twenty people, and twenty kills."""
    converge(server, tmp_path, votes=1000, kills=20, seed=seed)
