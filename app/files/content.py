"""Check the name of an uploaded file, and its type by its content."""

import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatchcase

import anyio.to_thread

from app.files.text import encoding_of

MAX_NAME_BYTES = 255
# The beginning of a file that its type is recognized by.
HEAD_BYTES = 8192
TEXT = "text/plain"
UNKNOWN = "application/octet-stream"
# Emoji need them.
_JOINERS = "\u200c\u200d"
# Categories of invisible characters: controls, direction marks, surrogates, line separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


class Refusal(ValueError):  # noqa: N818 - named for what happened
    """A refused file, with the status and the sentence of the response."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def check_name(name: str) -> str:
    """Return the name in its composed form; refuse a path, a name that looks like one, and invisible characters."""
    name = unicodedata.normalize("NFC", name).strip()
    lookalike = unicodedata.normalize("NFKC", name)
    if not lookalike.strip(" ."):
        raise Refusal(422, "The file has no name: give it one.")
    if {"/", "\\", "\u2215", "\u2044", "\u29f8"} & set(lookalike + name):
        raise Refusal(422, "A file's name must not be a path: remove everything up to the last slash.")
    if any(unicodedata.category(char) in _INVISIBLE and char not in _JOINERS for char in name):
        raise Refusal(422, "The file's name contains invisible characters: remove them.")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise Refusal(422, f"The file's name is longer than {MAX_NAME_BYTES} bytes: shorten it.")
    return name


async def check_type(head: bytes, allowed: Sequence[str]) -> str:
    """Return the type of a file that begins with `head`; refuse one that matches no allowed pattern."""
    found = await anyio.to_thread.run_sync(type_of, head)
    if not any(fnmatchcase(found, pattern) for pattern in allowed):
        raise Refusal(415, f"The file's content is {found}: send one of {', '.join(allowed)}.")
    return found


def type_of(head: bytes) -> str:
    """Return the media type of a file that begins like this, whatever its sender calls it."""
    import filetype  # its tables take memory that only uploads need

    return filetype.guess_mime(head[:HEAD_BYTES]) or (TEXT if encoding_of(head[:HEAD_BYTES]) else UNKNOWN)
