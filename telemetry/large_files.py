"""Files in a program's values: they are set aside unread when a value is read, and looked at when it is exported.

A note stands for a file meanwhile. It holds a random token, so that no text can name the file of somebody else.
"""

import re
from collections.abc import Callable
from secrets import token_hex
from typing import Any, NamedTuple

from telemetry import pipeline
from telemetry.lru_cache import LruCache

# Shorter ones are read like any other text.
SHORTEST = 8_192
# What is set aside keeps its memory: so many characters and bytes, those used last.
_MAX_SIZE = 64 * 1024 * 1024
NOTE = r"\[large file [0-9a-f]{32}, [0-9]+ (?:characters|bytes)\]"
_NOTE = re.compile(r"\[large file [0-9a-f]{32}, (?P<size>[0-9]+ (?:characters|bytes))\]")
_BASE64 = re.compile(r"[0-9A-Za-z+/_-]{254}[0-9A-Za-z+/_=-]{2}")


class _File(NamedTuple):
    note: str
    value: str | bytes


class LargeFiles:
    """The files of this process that were set aside, by their notes and by their values."""

    def __init__(self) -> None:
        self._by_note: LruCache[str, str | bytes] = LruCache(_MAX_SIZE, lambda _, value: len(value))
        # The value is alive as long as it is here, and its id is its own.
        self._by_id: LruCache[int, _File] = LruCache(_MAX_SIZE, lambda _, file: len(file.value))

    def set_aside(self, value: str | bytes) -> str:
        """Return the note that stands for a file."""
        file = self._by_id.get(id(value))
        if file is None or file.value is not value or self._by_note.get(file.note) is None:
            what = "characters" if isinstance(value, str) else "bytes"
            file = _File(f"[large file {token_hex(16)}, {len(value)} {what}]", value)
            self._by_id.put(id(value), file)
            self._by_note.put(file.note, value)
        return file.note

    def replace(self, text: str, describe: Callable[[str | bytes], str]) -> str:
        """Return text with descriptions of the files in place of their notes."""

        def described(found: re.Match[str]) -> str:
            value = self._by_note.get(found.group())
            return describe(value) if value is not None else f"[file of {found['size']}, no longer at hand]"

        return _NOTE.sub(described, text)


def set_aside(value: Any) -> str | None:
    """Return the note for a file in Base64, a data: URI, or bytes; None for anything else. It reads both ends only."""
    if len(value) < SHORTEST or not (type(value) is bytes or _is_file(value)):
        return None
    return pipeline.shared(LargeFiles).set_aside(value)


def replace(text: str, describe: Callable[[str | bytes], str]) -> str:
    """Return text with descriptions of the files that were set aside in place of their notes."""
    return pipeline.shared(LargeFiles).replace(text, describe) if "[large file " in text else text


def _is_file(text: str) -> bool:
    head, tail = text[:256], text[-256:]
    if head.startswith("data:"):
        return ";base64," in head
    return bool(_BASE64.fullmatch(head) and _BASE64.fullmatch(tail)) and head.lower() != head != head.upper()
