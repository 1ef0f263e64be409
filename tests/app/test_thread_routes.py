"""Threads: a user's own, the latest first, and nothing left of one that was deleted."""

import os
import re
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.trace import SpanKind

from telemetry.testing import Recorded
from tests.processes import until
from tests.service import service

ADA, BOB = {"X-User-Id": "ada"}, {"X-User-Id": "bob"}


@pytest.fixture
def url(spans: Recorded, tmp_path: Path) -> Iterator[str]:
    with service(tmp_path, DEMO_PACE_S=0.01) as address:
        yield address


def say(url: str, message: str, thread: str, headers: dict[str, str] = ADA) -> dict[str, Any]:
    answer = httpx.post(f"{url}/invoke", json={"message": message, "thread_id": thread}, headers=headers)
    return answer.raise_for_status().json()


def threads(url: str, headers: dict[str, str] = ADA, **query: str | int) -> list[dict[str, Any]]:
    return httpx.get(f"{url}/threads", headers=headers, params=query).raise_for_status().json()["threads"]


def test_threads_are_listed_by_their_last_turn(url: str) -> None:
    """A user sees their own threads, the latest used first, each by what was said first."""
    say(url, "My name is Ada.", "t-1")
    say(url, "What is 12*34? " + "Please. " * 30, "t-2")
    say(url, "What is my name?", "t-1")
    say(url, "Hello", "t-3", BOB)

    assert [thread["thread_id"] for thread in threads(url)] == ["t-1", "t-2"]
    assert [thread["title"] for thread in threads(url, BOB)] == ["Hello"]
    first, second = threads(url)
    assert first["title"] == "My name is Ada."
    assert second["title"].startswith("What is 12*34? Please.")
    assert len(second["title"]) <= 60


@pytest.mark.parametrize("word", ["Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz", "天气" * 40])
def test_a_long_word_is_part_of_a_title(url: str, word: str) -> None:
    """It is cut where it is longer than a title, as is a language without spaces."""
    say(url, f"Tell of {word}?", "t-1")
    [thread] = threads(url)
    assert re.fullmatch(rf"Tell of {word[:40]}\w* …", thread["title"])
    assert len(thread["title"]) <= 60


def test_a_long_list_comes_in_pieces(url: str) -> None:
    """The next piece begins before the last one seen."""
    for number in range(3):
        say(url, "Hello", f"t-{number}")
    first = threads(url, limit=2)

    assert [thread["thread_id"] for thread in first] == ["t-2", "t-1"]
    assert [thread["thread_id"] for thread in threads(url, before=first[-1]["updated"])] == ["t-0"]


def test_a_new_thread_with_a_file_is_listed(url: str) -> None:
    """A conversation that began with a file has no words yet, and is there."""
    httpx.post(f"{url}/files?thread_id=t-1", files={"file": ("a.txt", b"hello")}, headers=ADA).raise_for_status()

    assert [thread["title"] for thread in threads(url)] == ["New conversation"]


def test_a_refused_file_begins_no_thread(url: str) -> None:
    """A conversation whose first file was refused is not there, and its id is anybody's."""
    refused = httpx.post(f"{url}/files?thread_id=t-1", files={"file": ("a.exe", b"MZ" + bytes(64))}, headers=ADA)

    assert (refused.status_code, threads(url)) == (415, [])
    assert httpx.post(f"{url}/files?thread_id=t-1", files={"file": ("a.txt", b"b")}, headers=BOB).status_code == 201
    assert httpx.post(f"{url}/files?thread_id=t-1", files={"file": ("a.txt", b"a")}, headers=ADA).status_code == 404


def test_nothing_is_left_of_a_deleted_thread(url: str, tmp_path: Path) -> None:
    """Its messages, its runs and its files are gone; its id is free, and remembers nothing."""
    said = say(url, "My name is Ada.", "t-1")
    sent = httpx.post(f"{url}/files?thread_id=t-1", files={"file": ("a.txt", b"hello")}, headers=ADA).json()
    (tmp_path / "python" / "t-1").mkdir(parents=True)
    assert httpx.delete(f"{url}/threads/t-1", headers=ADA).status_code == 200

    assert threads(url) == []
    assert httpx.post(f"{url}/history", json={"thread_id": "t-1"}, headers=ADA).status_code == 404
    assert httpx.get(f"{url}/files/{sent['file_id']}", headers=ADA).status_code == 404
    assert httpx.post(f"{url}/runs/{said['run_id']}/cancel", headers=ADA).status_code == 404
    assert [list((tmp_path / name).iterdir()) for name in ("files", "python")] == [[], []]
    assert "Ada" not in say(url, "What is my name?", "t-1", BOB)["content"]


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_thread_without_a_word_can_be_deleted(url: str, kept: int) -> None:
    """A conversation that has nothing but files goes with them, before anybody has ever said a word."""
    files = [{"file": ("a.txt", b"hello")}] * 3
    ids = [httpx.post(f"{url}/files?thread_id=t-1", files=file, headers=ADA).json()["file_id"] for file in files]
    for file_id in ids[kept:]:
        httpx.delete(f"{url}/files/{file_id}", headers=ADA).raise_for_status()

    assert httpx.delete(f"{url}/threads/t-1", headers=ADA).status_code == 200
    assert threads(url) == []
    assert httpx.post(f"{url}/files?thread_id=t-1", files=files[0], headers=BOB).status_code == 201


def test_a_thread_whose_files_stay_is_still_there(url: str, tmp_path: Path) -> None:
    """Where its files cannot be removed the deletion says so, and nobody else is given its id; it can be repeated."""
    say(url, "Hello", "t-1")
    (tmp_path / "python" / "t-1").mkdir(parents=True)
    with unremovable(tmp_path / "python" / "t-1" / "d"):
        answer = httpx.delete(f"{url}/threads/t-1", headers=ADA)

        assert (answer.status_code, "cannot be removed" in answer.json()["detail"]) == (500, True)
        assert str(tmp_path) not in answer.text
        assert [thread["thread_id"] for thread in threads(url)] == ["t-1"]
        assert httpx.post(f"{url}/history", json={"thread_id": "t-1"}, headers=BOB).status_code == 404
    assert httpx.delete(f"{url}/threads/t-1", headers=ADA).status_code == 200
    assert (threads(url), list((tmp_path / "python").iterdir())) == ([], [])


@contextmanager
def unremovable(folder: Path) -> Iterator[None]:
    """Make a folder that cannot be removed: for root, who may remove everything, something is mounted there."""
    folder.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    else:
        folder.parent.parent.chmod(0o500)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.parent.parent.chmod(0o700)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_nobody_else_on_the_machine_reads_it(spans: Recorded, tmp_path: Path, umask: int) -> None:
    """The folder of what people said is its owner's alone, and so are its uploads, whatever the umask."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    before = os.umask(umask)
    try:
        with service(tmp_path / "data") as url:
            httpx.post(f"{url}/files?thread_id=t-1", files={"file": ("a.txt", b"hello")}).raise_for_status()
    finally:
        os.umask(before)
    (upload,) = (tmp_path / "data" / "files").iterdir()

    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data", upload.parent)] == [0o700, 0o700]
    assert stat.S_IMODE(upload.stat().st_mode) & 0o077 == 0


def test_no_question_outlives_its_thread(url: str, tmp_path: Path) -> None:
    """What a deleted conversation asked its user is kept nowhere."""
    asked = {"message": "Book a table for 4 at 19:30", "thread_id": "t-1"}
    httpx.post(f"{url}/interrupt/invoke", json=asked, headers=ADA).raise_for_status()
    with closing(sqlite3.connect(tmp_path / "service.db")) as database:
        assert database.execute("SELECT count(*) FROM run_questions").fetchone() == (1,)
        httpx.delete(f"{url}/threads/t-1", headers=ADA).raise_for_status()
        assert database.execute("SELECT count(*) FROM run_questions").fetchone() == (0,)


def test_nothing_is_left_of_background_runs(url: str) -> None:
    """A thread with a run under way is not deleted; with it go its runs in the background and what they said."""
    pytest.importorskip("dbos", reason="background runs need DBOS")
    asked = {"message": "Tell me a story of 500 words", "thread_id": "t-1"}
    run_id = httpx.post(f"{url}/chatbot/runs", json=asked, headers=ADA).raise_for_status().json()["run_id"]
    refused = httpx.delete(f"{url}/threads/t-1", headers=ADA)

    assert (refused.status_code, "wait until it has finished" in refused.json()["detail"]) == (409, True)
    until(lambda: httpx.get(f"{url}/runs/{run_id}", headers=ADA).json()["status"] == "completed", 60)
    until(lambda: httpx.delete(f"{url}/threads/t-1", headers=ADA).status_code == 200)
    assert httpx.get(f"{url}/runs/{run_id}", headers=ADA).status_code == 404
    assert httpx.get(f"{url}/runs/{run_id}/events", headers=ADA).status_code == 404


def test_where_a_thread_stands(url: str, spans: Recorded) -> None:
    """It is the latest run and its status, in the background or not; who looks, and looks in vain, leaves no trace."""
    pytest.importorskip("dbos", reason="background runs need DBOS")
    said = say(url, "Hello", "t-1")
    assert stands(url) == {"thread_id": "t-1", "run_id": said["run_id"], "status": "completed"}
    assert httpx.get(f"{url}/threads/t-9", headers=ADA).status_code == 404
    assert [span.name for span in spans.settled() if span.kind is SpanKind.SERVER] == ["POST /invoke"]

    asked = {"message": "Tell me a story of 4000 words", "thread_id": "t-1"}
    run_id = httpx.post(f"{url}/chatbot/runs", json=asked, headers=ADA).raise_for_status().json()["run_id"]
    assert stands(url)["run_id"] == run_id
    until(lambda: stands(url)["status"] == "running", 60)
    httpx.post(f"{url}/runs/{run_id}/cancel", headers=ADA).raise_for_status()
    until(lambda: stands(url)["status"] == "cancelled", 60)
    assert stands(url)["run_id"] == run_id


def stands(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/threads/t-1", headers=ADA).raise_for_status().json()


def test_another_users_thread_is_not_there(url: str) -> None:
    """Nobody deletes somebody else's thread, or looks at it, or learns that there is one."""
    say(url, "Hello", "t-1")
    for verb in ("DELETE", "GET"):
        theirs, none = (httpx.request(verb, f"{url}/threads/{thread}", headers=BOB) for thread in ("t-1", "t-9"))

        assert (theirs.status_code, none.status_code) == (404, 404)
        assert theirs.json()["detail"].replace("t-1", "t-9") == none.json()["detail"]
    assert len(threads(url)) == 1


def test_a_thread_that_answers_is_not_deleted(tmp_path: Path) -> None:
    """While a turn is under way its thread stays, and can be deleted afterwards."""
    asked = {"message": "Tell me a long story", "thread_id": "t-1"}
    with service(tmp_path, DEMO_PACE_S=0.2) as url:
        with httpx.stream("POST", f"{url}/stream", json=asked, headers=ADA) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            refused = httpx.delete(f"{url}/threads/t-1", headers=ADA)
        until(lambda: httpx.delete(f"{url}/threads/t-1", headers=ADA).status_code == 200)

    assert (refused.status_code, "wait until it has finished" in refused.json()["detail"]) == (409, True)


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "before=yesterday"])
def test_a_bad_question_is_refused(url: str, query: str) -> None:
    """What cannot be listed is a 422 with a sentence."""
    response = httpx.get(f"{url}/threads?{query}", headers=ADA)

    assert (response.status_code, query.split("=")[0] in response.json()["detail"]) == (422, True)
