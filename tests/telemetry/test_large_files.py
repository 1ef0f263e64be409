"""Files that are set aside unread while a program's values are read."""

from base64 import b64encode
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from telemetry import large_files, pipeline
from telemetry.export.redact import Redactor
from telemetry.instrumentation.langchain.serialize import Serializer
from telemetry.plain_data import plain, safe_json

CONTENT = b"\x89PNG" + bytes(range(256)) * 20_000
NOTE = "[image/png, 5120004 bytes, sha256 "


def encoded(content: bytes = CONTENT) -> str:
    return b64encode(content).decode()


@pytest.mark.parametrize(
    "value", [encoded(), f"data:image/png;base64,{encoded()}", CONTENT], ids=["base64", "uri", "bytes"]
)
def test_a_large_file_is_described_where_it_is_exported(value: Any) -> None:
    """It takes no space of what is read, so that all beside it is there; the description has its type and size."""
    text = safe_json({"first": value, "then": ["x" * 1_000] * 200, "last": value})
    assert len(text) < 205_000
    described = Redactor().redact_text(text)
    assert described.count(NOTE) == 2
    assert described.count("x" * 1_000) == 200


def test_the_same_object_has_one_note() -> None:
    """A picture in the history of a conversation is the same in each turn."""
    picture = encoded()
    assert plain([picture]) == plain([picture])
    assert plain([picture]) != plain([encoded()])


def test_nobody_names_the_file_of_another() -> None:
    """A note that was not made in this process, or that was guessed, stands for nothing."""
    plain(encoded())
    guessed = f"see [large file {'0' * 32}, 5120004 characters]"
    assert Redactor().redact_text(guessed) == "see [file of 5120004 characters, no longer at hand]"


def test_what_is_set_aside_is_bounded() -> None:
    """The files used last are kept, up to 64 MB of them."""
    pipeline.remove(large_files.LargeFiles)
    notes = [plain(bytes(8_000_000) + bytes([number])) for number in range(20)]
    notes.reverse()  # to look at an old one makes it one of those used last
    kept = [note for note in notes if "binary" in large_files.replace(note, lambda _: "binary")]
    assert 4 <= len(kept) <= 8
    assert kept == notes[: len(kept)]
    pipeline.remove(large_files.LargeFiles)


@pytest.mark.parametrize("text", ["word " * 4_000, "a" * 20_000, "data:," + "a b" * 9_000, "x=1;base64," * 2_000])
def test_other_text_is_read(text: str) -> None:
    """Long text that is no file stays as it is."""
    assert plain(text) == text


def test_a_message_with_a_picture_leaves_room_for_the_others() -> None:
    """What is left out of a long conversation depends on what is sent of it, not on the size of its files."""
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded()}"}}
    messages = [HumanMessage([{"type": "text", "text": "look"}, picture]), *[HumanMessage("more")] * 20]
    shown, left_out = Serializer(budget=10_000).conversation(messages)
    assert left_out == 0
    assert shown.count("more") == 20
