"""The agent reads the files of its own thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import AgentClient
from telemetry.testing import Recorded
from tests.service import service

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture
def client(spans: Recorded, tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path) as url:
        yield AgentClient(url, "chatbot", timeout=30, user_id="ada")


def test_it_lists_and_reads(client: AgentClient) -> None:
    """What was uploaded to the thread is listed and read, the latest of a name; another thread's is not there."""
    client.upload("t-1", b"The door code is old.", name="notes.txt")
    client.upload("t-1", b"The door code is new.", name="notes.txt")
    client.upload("t-1", PNG, name="door.png")

    assert "door.png (image/png, 72 bytes)" in client.invoke("Which files are there?", thread_id="t-1").content
    assert "The door code is new." in client.invoke("Read the file notes.txt", thread_id="t-1").content
    assert "There is no file notes.txt; there are: none." in client.invoke("Read the file notes.txt").content


def test_it_reads_texts_only_and_not_all(client: AgentClient) -> None:
    """A picture is refused in words, and of a long text the beginning is given."""
    client.upload("t-1", PNG, name="door.png")
    client.upload("t-1", b"word " * 10_000, name="long.txt")

    assert "only text files can be read" in client.invoke("Read the file door.png", thread_id="t-1").content
    long = client.invoke("Read the file long.txt", thread_id="t-1").content
    assert "the beginning of 50000 bytes" in long
    assert len(long) < 21_000


def test_reading_is_a_tool_call(client: AgentClient, spans: Recorded) -> None:
    """Reading a file is a tool's span in the turn's trace."""
    client.upload("t-1", b"hello", name="notes.txt")
    spans.settled()
    spans.clear()
    client.invoke("Read the file notes.txt", thread_id="t-1")

    assert "read_file TOOL" in spans.tree()
