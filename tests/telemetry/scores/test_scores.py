"""Scores: kept at once, delivered as often as it takes, one for each thing, user and name, the last word wins."""

import fcntl
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry import pipeline
from telemetry.delivery import backoff
from telemetry.delivery import scores as delivery
from telemetry.delivery.scores import ScoreStore, drop_foreign
from telemetry.scores import api, queue
from telemetry.scores.queue import Posted, ScoreQueue
from telemetry.scores.score import Score
from telemetry.settings import Settings, load_settings
from telemetry.testing import Recorded, recording
from tests.langfuse_server import Langfuse, langfuse_server
from tests.processes import run_code, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "sk-proj-abcdefghijklmnop1234567890ABCDEFGHIJ"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Langfuse]:
    monkeypatch.setattr(backoff, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(backoff, "MAX_DELAY_S", 0.1)
    monkeypatch.setattr(backoff, "CONFIG_ERROR_DELAY_S", 0.1)
    monkeypatch.setattr(delivery, "IDLE_S", 0.1)
    with langfuse_server(tmp_path) as langfuse:
        for name, value in langfuse.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TELEMETRY_SPOOL_DIR", str(tmp_path / "spool"))
        yield langfuse


@pytest.fixture
def spans(server: Langfuse) -> Iterator[Recorded]:
    with recording(load_settings()) as recorded:
        yield recorded


def outcome(posted: Posted | None, seconds: float = 0) -> dict[str, str]:
    assert posted
    return posted.places(seconds)


def settled(server: Langfuse) -> list[dict[str, Any]]:
    until(lambda: telemetry.stats()["scores"]["langfuse"]["waiting"] == 0)
    return server.scores(TRACE)


def on_disk(folder: Path) -> bytes:
    """All that is there; a file may go as SQLite closes another."""
    found = b""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found += path.read_bytes()
    return found


@pytest.mark.parametrize(
    ("value", "kind"),
    [(True, "BOOLEAN"), (False, "BOOLEAN"), (1, "NUMERIC"), (0.25, "NUMERIC"), ("good", "CATEGORICAL")],
)
def test_a_score_arrives_as_what_it_is(spans: Recorded, server: Langfuse, value: float | str, kind: str) -> None:
    """A score has the type of its value, its comment and its metadata, and says who sent it where."""
    posted = telemetry.score("mood", value, trace_id=TRACE, comment="Well.", metadata={"page": 2})
    assert outcome(posted, 60) == {"langfuse": "sent"}
    [score] = server.scores(TRACE)

    assert (score["value"], score["dataType"], score["name"]) == (value, kind, "mood")
    assert (score["comment"], score["metadata"], score["id"]) == (
        "Well.",
        {"page": 2},
        posted and posted.score.score_id,
    )
    assert score["subject"] == {"kind": "trace", "id": TRACE}


def test_the_environment_is_that_of_the_traces(server: Langfuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Score and trace are filed under the same environment, whoever names it."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=Staging")
    with recording(load_settings()):
        posted = telemetry.score("mood", 1, trace_id=TRACE)
        assert outcome(posted, 60) == {"langfuse": "sent"}

    assert server.scores(TRACE)[0]["environment"] == "staging"


def test_a_change_of_mind_is_no_second_vote(spans: Recorded, server: Langfuse) -> None:
    """The same user's later score replaces the earlier one and has its time; another user's is another one."""
    at = Score(name="x", value=1, trace_id=TRACE).at
    for user, value in (("ada", 1), ("bob", 1), ("ada", 0)):
        posted = telemetry.score("mood", value, trace_id=TRACE, user_id=user, at=at)
        assert outcome(posted, 60) == {"langfuse": "sent"}

    assert sorted(score["value"] for score in server.scores(TRACE)) == [0, 1]


def test_the_id_of_a_score_betrays_no_hashed_user(server: Langfuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where user ids are hashed, so is the one in a score's id: nobody can try names out; a user still has one vote."""
    monkeypatch.setenv("TELEMETRY_USER_HASH_KEY", "k" * 16)
    at = Score(name="x", value=1, trace_id=TRACE).at
    guessed = Score(name="mood", value=1, trace_id=TRACE, user_id="ada", at=at).score_id
    with recording(load_settings()):
        for user, value in (("ada", 1), ("bob", 1), ("ada", 0)):
            posted = telemetry.score("mood", value, trace_id=TRACE, user_id=user, at=at)
            assert outcome(posted, 60) == {"langfuse": "sent"}

    scores = server.scores(TRACE)
    assert sorted(score["value"] for score in scores) == [0, 1]
    assert guessed not in [score["id"] for score in scores]


def test_a_score_can_be_taken_back(spans: Recorded, server: Langfuse) -> None:
    """None takes a score back, one that has arrived and one that has not."""
    telemetry.score("arrived", 1, trace_id=TRACE)
    assert settled(server)
    server.status = 503
    telemetry.score("waiting", 1, trace_id=TRACE)
    telemetry.score("waiting", None, trace_id=TRACE)
    telemetry.score("arrived", None, trace_id=TRACE)
    until(lambda: any(isinstance(each, str) for each in server.asked))  # no earlier word is on its way any more
    server.status = None

    until(lambda: server.scores(TRACE) == [])
    assert [each[0]["name"] for each in server.taken if isinstance(each, list)] == ["arrived"]


def test_what_was_never_there_is_taken_back_in_the_end(
    spans: Recorded, server: Langfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place may know a score later than its removal: it is told again for a while, and then no more."""
    telemetry.score("mood", None, trace_id=TRACE)
    until(lambda: len(server.asked) > 1)
    monkeypatch.setattr(delivery, "SETTLED_S", 0)

    assert settled(server) == []


def test_nothing_is_lost_while_the_backend_is_down(spans: Recorded, server: Langfuse) -> None:
    """What is scored meanwhile is kept, shown as waiting, and arrives; of each score only the last word."""
    server.status = 503
    posted = [telemetry.score(f"mood-{n % 20}", n, trace_id=TRACE) for n in range(60)]
    assert outcome(posted[-1], 0.3) == {"langfuse": "queued"}
    until(lambda: telemetry.stats()["scores"]["langfuse"]["waiting"] == 20)
    until(lambda: telemetry.stats()["scores"]["langfuse"]["last_error"])
    assert "503" in telemetry.stats()["scores"]["langfuse"]["last_error"]["what"]
    server.status = None

    assert sorted(score["value"] for score in settled(server)) == list(range(40, 60))


def test_a_login_page_takes_no_score(spans: Recorded, server: Langfuse) -> None:
    """A proxy that answers 200 with a web page has not taken the score: it waits, and arrives."""
    server.login = True
    telemetry.score("mood", 1, trace_id=TRACE)
    until(lambda: telemetry.stats()["scores"]["langfuse"]["last_error"])
    assert telemetry.stats()["scores"]["langfuse"]["last_error"]["what"] == "200 with a web page"

    server.login = False
    assert [score["value"] for score in settled(server)] == [1]


def test_a_lost_acknowledgement_doubles_nothing(spans: Recorded, server: Langfuse) -> None:
    """What the backend took without saying so is sent again under its id."""
    server.status, server.forgets = 500, True
    telemetry.score("mood", 1, trace_id=TRACE)
    until(lambda: len(server.asked) > 2)
    server.status = None

    assert [score["value"] for score in settled(server)] == [1]


def test_the_last_word_wins_while_the_first_is_on_its_way(spans: Recorded, server: Langfuse) -> None:
    """A word that comes while the earlier one is being sent is sent after it."""
    server.slow_s = 0.3
    telemetry.score("mood", 1, trace_id=TRACE)
    until(lambda: server.asked)
    posted = telemetry.score("mood", 2, trace_id=TRACE)

    assert outcome(posted, 60) == {"langfuse": "sent"}
    assert [score["value"] for score in server.scores(TRACE)] == [2]


def test_a_file_that_cannot_be_opened_stops_nobody(server: Langfuse) -> None:
    """Where scores cannot be on disk, as in another user's folder, tracing begins and they arrive all the same."""
    spool = Path(os.environ["TELEMETRY_SPOOL_DIR"])
    with recording(load_settings()):
        telemetry.score("stars", 1, trace_id=TRACE)
    [file] = spool.glob("scores-*.sqlite")
    file.unlink()
    file.mkdir()

    with recording(load_settings()):
        posted = telemetry.score("words", 1, trace_id=TRACE)
        assert outcome(posted, 60) == {"langfuse": "sent"}


def test_a_refused_score_lets_the_others_pass(spans: Recorded, server: Langfuse) -> None:
    """What the backend refuses for good is kept apart, with the reason, and shown."""
    refused = telemetry.score("", 1, trace_id=TRACE)
    telemetry.score("mood", 2, trace_id=TRACE)

    assert len(settled(server)) == 1
    assert outcome(refused)["langfuse"].startswith("skipped: it was refused: ")
    until(lambda: telemetry.stats()["scores"]["langfuse"]["refused"] == 1)


def test_an_older_server_takes_one_at_a_time(spans: Recorded, server: Langfuse) -> None:
    """A server that knows no list of scores gets them one by one, and is asked with a list only once."""
    server.lists = False
    for n in range(3):
        telemetry.score(f"mood-{n}", n, trace_id=TRACE)

    assert len(settled(server)) == 3
    assert [type(each) for each in server.asked] == [list, dict, dict, dict]


def test_secrets_are_redacted(spans: Recorded, server: Langfuse, tmp_path: Path) -> None:
    """A secret in a comment, a value or the metadata reaches neither the disk nor the backend."""
    server.status = 503
    telemetry.score(
        "mood", SECRET, trace_id=TRACE, comment=f"use {SECRET}", metadata={"note": SECRET, "password": "x1y2"}
    )
    assert SECRET.encode() not in on_disk(tmp_path / "spool")
    server.status = None

    [score] = settled(server)
    assert SECRET not in json.dumps(score)
    assert score["metadata"]["password"] == "[redacted]"
    assert score["comment"].startswith("use ")


def test_metadata_only_keeps_back_what_was_written(server: Langfuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where content does not leave, a score goes without words."""
    monkeypatch.setenv("TELEMETRY_CONTENT", "metadata-only")
    with recording(load_settings()):
        telemetry.score("mood", 1, trace_id=TRACE, comment="Dear doctor", metadata={"note": "private"})
        [score] = settled(server)

    assert (score["value"], score["comment"], score["metadata"]) == (1, None, None)


def test_the_next_process_delivers_what_is_left(server: Langfuse) -> None:
    """What one process could not deliver the next one does, at its start."""
    server.status = 503
    with recording(load_settings()):
        telemetry.score("mood", 1, trace_id=TRACE)
    server.status = None
    assert server.scores(TRACE) == []
    with recording(load_settings()):
        until(lambda: server.scores(TRACE))


def test_processes_share_the_order(server: Langfuse) -> None:
    """Of two processes that score the same thing the one that came last wins, whoever delivers."""
    server.status = 503
    first, second = ScoreQueue(load_settings()), ScoreQueue(load_settings())
    for value, each in enumerate([first, second, first, second]):
        each.post(Score(name="mood", value=value, trace_id=TRACE))
    server.status = None
    until(lambda: server.scores(TRACE))
    first.close()
    second.close()

    assert [score["value"] for score in server.scores(TRACE)] == [3]
    assert [each[0]["value"] for each in server.taken].count(3) == 1


def test_scores_in_many_threads(spans: Recorded, server: Langfuse) -> None:
    """Scores given at the same time in many threads all arrive."""
    work = [
        threading.Thread(target=telemetry.score, args=(f"mood-{n}", n), kwargs={"trace_id": TRACE}) for n in range(30)
    ]
    for each in work:
        each.start()
    for each in work:
        each.join()

    assert len(settled(server)) == 30


def test_scores_after_a_fork(server: Langfuse, tmp_path: Path) -> None:
    """A forked child delivers its own scores."""
    program = (
        "import os, telemetry, time\n"
        "telemetry.configure('t')\n"
        f"telemetry.score('parent', 1, trace_id='{TRACE}').places(60)\n"
        "if os.fork() == 0:\n"
        f"    print(telemetry.score('child', 1, trace_id='{TRACE}').places(60), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    ran = run_code(program, env=os.environ)

    assert "sent" in ran.stdout, ran.stderr
    assert {score["name"] for score in server.scores(TRACE)} == {"parent", "child"}


def test_a_fork_amid_scores(tmp_path: Path) -> None:
    """A child that is forked while its parent's threads score finds the file whole."""
    program = (
        "import os, sys, threading\n"
        "from pathlib import Path\n"
        "from telemetry.delivery.scores import ScoreStore\n"
        "store = ScoreStore(Path(sys.argv[1]))\n"
        "over = threading.Event()\n"
        "def score():\n"
        "    while not over.is_set(): store.put('parent', '{}')\n"
        "thread = threading.Thread(target=score)\n"
        "thread.start()\n"
        "for number in range(40):\n"
        "    if os.fork() == 0:\n"
        "        store.put(f'child {number}', '{}')\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0\n"
        "over.set()\n"
        "thread.join()\n"
    )
    path = tmp_path / "scores.sqlite"
    run_code(program, str(path), env={}).check_returncode()

    assert {row.score_id for row in ScoreStore(path).take(100)} == {
        "parent",
        *(f"child {number}" for number in range(40)),
    }


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A broken file is set aside, and scoring goes on in a new one."""
    path = tmp_path / "scores.sqlite"
    ScoreStore(path).put("lost", "{}")
    path.write_bytes(b"no database, " * 1000)
    ScoreStore(path).put("kept", "{}")

    assert [row.score_id for row in ScoreStore(path).take(10)] == ["kept"]
    assert path.with_suffix(".corrupt").exists()


def test_a_damaged_row_lets_the_others_pass(server: Langfuse, tmp_path: Path) -> None:
    """A row that is no score any more is put aside, and the ones behind it arrive."""
    server.status = 503
    with recording(load_settings()):
        telemetry.score("lost", 1, trace_id=TRACE)
        telemetry.score("kept", 2, trace_id=TRACE)
    [path] = (tmp_path / "spool").glob("scores-*.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE waiting SET body = 'no json' WHERE number = 1")
        db.commit()
    server.status = None

    with recording(load_settings()):
        until(lambda: server.scores(TRACE))
        until(lambda: telemetry.stats()["scores"]["langfuse"]["refused"] == 1)
    assert [score["name"] for score in server.scores(TRACE)] == ["kept"]


@pytest.mark.parametrize(
    "damage", ["ALTER TABLE waiting ADD COLUMN more", "DROP TABLE waiting; CREATE TABLE waiting (a)"]
)
def test_a_file_with_other_columns_is_set_aside(tmp_path: Path, damage: str) -> None:
    """A file that is no store of scores is set aside, and scoring goes on in a new one."""
    path = tmp_path / "scores.sqlite"
    ScoreStore(path).put("lost", "{}")
    with closing(sqlite3.connect(path)) as db:
        db.executescript(damage)
    ScoreStore(path).put("kept", "{}")

    assert [row.score_id for row in ScoreStore(path).take(10)] == ["kept"]
    assert path.with_suffix(".corrupt").exists()


def test_scores_for_another_backend_are_not_kept_for_ever(tmp_path: Path) -> None:
    """Old files that this process has no backend for go, with what was said in them; its own and newer ones stay."""
    names = ["scores-langfuse-old", "scores-langfuse-new", "scores-langfuse-ours", "scores-langfuse-taken"]
    old, new, ours, taken = (tmp_path / f"{name}.sqlite" for name in names)
    kept = ScoreStore(ours)
    for path in (old, new, ours, taken):
        ScoreStore(path).put("a", "{}")
        ScoreStore(path).put("b", "{}")
    for path in (old, ours, taken):
        os.utime(path, (1, 1))
    with taken.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert drop_foreign(tmp_path, 2) == 2
        assert set(tmp_path.glob("*.sqlite")) == {new, ours, taken}
    assert drop_foreign(tmp_path, 2) == 2
    assert set(tmp_path.glob("*.sqlite")) == {new, ours}
    assert not [*tmp_path.glob("*old*"), *tmp_path.glob("*taken*")]
    assert kept.waiting().rows == 2


def test_a_disk_that_takes_nothing(server: Langfuse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the spool's folder cannot be made, scores wait in memory and arrive."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TELEMETRY_SPOOL_DIR", str(tmp_path / "file" / "spool"))
    with recording(load_settings()):
        telemetry.score("mood", 1, trace_id=TRACE)
        assert len(settled(server)) == 1


def test_only_the_owner_reads_what_people_wrote(spans: Recorded, server: Langfuse, tmp_path: Path) -> None:
    """The files of waiting scores are the service's own."""
    telemetry.score("mood", 1, trace_id=TRACE)

    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "spool").glob("scores-*.sqlite")} == {0}


def test_the_current_trace_is_scored(spans: Recorded, server: Langfuse) -> None:
    """The client scores the trace and the span it is in, as the user it is for."""
    with telemetry.scope(user_id="ada"), telemetry.span("answer"):
        here = telemetry.current_trace()
        on_trace = telemetry.get_client().score_current_trace(name="trace", value=1)
        on_span = telemetry.get_client().score_current_span(name="span", value=True, comment="fine")
    assert outcome(on_trace, 60) == outcome(on_span, 60) == {"langfuse": "sent"}
    assert here
    subjects = {score["name"]: score["subject"] for score in server.scores(here.trace_id)}

    assert subjects["trace"] == {"kind": "trace", "id": here.trace_id}
    assert subjects["span"] == {"kind": "observation", "id": here.span_id, "traceId": here.trace_id}
    assert on_trace
    assert on_trace.score.score_id == Score(name="trace", value=1, trace_id=here.trace_id, user_id="ada").score_id


def test_scoring_is_not_traced(spans: Recorded, server: Langfuse) -> None:
    """Delivering a score makes no span."""
    posted = telemetry.score("mood", 1, trace_id=TRACE)
    assert outcome(posted, 60) == {"langfuse": "sent"}

    assert [span.name for span in spans.settled()] == []


def test_without_a_trace_there_is_nothing_to_score(spans: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """Outside of any trace a score goes nowhere, and that is said."""
    api._say_once.cache_clear()
    assert telemetry.score("mood", 1) is None
    assert "name the one that is scored" in caplog.text


def test_with_tracing_off_scoring_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """With tracing off the client has the same methods, does nothing, and has said so once."""
    api._say_once.cache_clear()
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        telemetry.get_client().score_current_trace(name="mood", value=1)
        telemetry.get_client().create_score(name="mood", value=1, trace_id=TRACE)
        assert telemetry.score("mood", 1, trace_id=TRACE) is None
        assert telemetry.get_client().get_trace_url() is None

    assert len([record for record in caplog.records if "scores are not sent" in record.message]) <= 2


def test_without_keys_the_answer_says_so(tmp_path: Path) -> None:
    """A backend that is no Langfuse has no scores: the answer says so, and nothing is kept."""
    settings = Settings.model_validate({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    made = ScoreQueue(
        settings.model_copy(update={"public_key": None, "secret_key": None, "spool_dir": tmp_path / "spool"})
    )

    posted = made.post(Score(name="mood", value=1, trace_id=TRACE))

    assert posted.places() == {"langfuse": "skipped: there are no LANGFUSE_* keys"}
    assert not (tmp_path / "spool").exists()


def test_two_projects_do_not_mix(server: Langfuse, tmp_path: Path) -> None:
    """What waits for one project does not go to another."""
    server.status = 503
    with recording(load_settings()):
        telemetry.score("mood", 1, trace_id=TRACE)
    server.status = None
    (tmp_path / "other").mkdir()
    with langfuse_server(tmp_path / "other") as other:
        spool = {"TELEMETRY_SPOOL_DIR": tmp_path / "spool"}
        made = ScoreQueue(Settings.model_validate({**other.env, **spool}))
        posted = made.post(Score(name="own", value=1, trace_id=TRACE))
        assert posted.places(60) == {"langfuse": "sent"}
        made.close()

        assert [score["name"] for score in other.scores(TRACE)] == ["own"]


def test_a_process_has_one_score_queue() -> None:
    """Starting again closes what was open."""
    settings = Settings.model_validate({"LANGFUSE_TRACING": "false"})
    queue.start(settings)
    first = pipeline.get(ScoreQueue)
    queue.start(settings)

    assert pipeline.get(ScoreQueue) is not first
    queue.stop()
    queue.stop()
    assert pipeline.get(ScoreQueue) is None


def test_a_score_on_disk_is_readable(spans: Recorded, server: Langfuse, tmp_path: Path) -> None:
    """What waits is plain SQLite and JSON, for a person who wants to look."""
    server.status = 503
    telemetry.score("mood", 1, trace_id=TRACE, user_id="grace")
    [path] = (tmp_path / "spool").glob("scores-langfuse-*.sqlite")
    with sqlite3.connect(path) as db:
        [(body,)] = db.execute("SELECT body FROM waiting")
    db.close()

    assert json.loads(body)["name"] == "mood"
    assert "grace" not in body
