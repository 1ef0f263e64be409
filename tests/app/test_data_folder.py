"""What the service keeps in its folder, and who may read it."""

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest

from app.client import AgentClient
from tests.service import service


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_others_on_the_machine_read_nothing(tmp_path: Path, umask: int) -> None:
    """Folder and databases are the owner's alone, whatever the umask, also those of a former release."""
    folder, before = tmp_path / "data", os.umask(umask)
    try:
        folder.mkdir(mode=0o700)
        (folder / "service.db").touch(mode=0o644)
        for name in ("data", "new"):
            with service(tmp_path / name) as url:
                AgentClient(url, "chatbot", user_id="ada").submit("What is 12*34?")
                files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
                assert {path.name: oct(path.stat().st_mode & 0o077) for path in files} == dict.fromkeys(
                    (path.name for path in files), "0o0"
                )
            assert (tmp_path / name).stat().st_mode & 0o077 == 0
    finally:
        os.umask(before)


def test_a_thread_that_has_only_files_can_be_deleted(tmp_path: Path) -> None:
    """Before the first turn as well."""
    with service(tmp_path) as url:
        client = AgentClient(url, user_id=None)
        client.upload("t-1", b"Hello", "hello.txt")
        assert client.delete_thread("t-1").thread_id == "t-1"
        assert client.get_threads().threads == []


@pytest.mark.parametrize("hours", [-11, -1, 0, 1, 13])
def test_threads_before_a_time_with_an_offset(tmp_path: Path, hours: int) -> None:
    """The same moment means the same, in whatever time zone it is written."""
    zone = timezone(timedelta(hours=hours))
    with service(tmp_path) as url:
        client = AgentClient(url)
        client.invoke("Hello", thread_id="t-1")
        updated = client.get_threads().threads[0].updated
        for moment, number in ((updated, 0), (updated + timedelta(seconds=1), 1)):
            there = moment.astimezone(zone)
            assert len(client.get_threads(before=there).threads) == number
            answer = httpx.get(f"{url}/threads", params={"before": there.isoformat()})
            assert len(answer.json()["threads"]) == number
        assert isinstance(updated, datetime)
