"""What a file may be called and what it is, by its content."""

import codecs
import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatchcase

import anyio.to_thread

MAX_NAME_BYTES = 255
# So much of a file tells its type.
HEAD_BYTES = 8192
TEXT = "text/plain"
UNKNOWN = "application/octet-stream"
# Emoji are joined by them.
_JOINERS = "\u200c\u200d"
# Beside these, what is no printable character: controls, marks of direction, halves of characters, separators of lines.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_CONTROLS_IN_TEXT = frozenset(b"\t\n\r\f\b\x1b")


class Refusal(ValueError):  # noqa: N818 - named for what happened
    """A file that is not taken, with the status and the sentence to answer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def checked_name(name: str) -> str:
    """Return the name in its composed form; refuses one that is a path, looks like one, or hides something."""
    name = unicodedata.normalize("NFC", name).strip()
    looks = unicodedata.normalize("NFKC", name)
    if not looks.strip(" ."):
        raise Refusal(422, "The file has no name: give it one.")
    if {"/", "\\", "\u2215", "\u2044", "\u29f8"} & set(looks + name):
        raise Refusal(422, "A file's name is no path: leave out what stands before the last slash.")
    if any(unicodedata.category(each) in _UNSEEN and each not in _JOINERS for each in name):
        raise Refusal(422, "The file's name holds characters that cannot be seen: leave them out.")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise Refusal(422, f"The file's name is longer than {MAX_NAME_BYTES} bytes: shorten it.")
    return name


async def checked_type(head: bytes, allowed: Sequence[str]) -> str:
    """Return the type of a file that begins with `head`; refuses one that is not among the allowed patterns."""
    found = await anyio.to_thread.run_sync(type_of, head)
    if not any(fnmatchcase(found, pattern) for pattern in allowed):
        raise Refusal(415, f"By its content the file is {found}: send one of {', '.join(allowed)}.")
    return found


def type_of(head: bytes) -> str:
    """Return the media type of what begins like this; nobody's word about it counts."""
    import filetype  # its tables are for those who upload

    return filetype.guess_mime(head[:HEAD_BYTES]) or (TEXT if is_text(head[:HEAD_BYTES]) else UNKNOWN)


def is_text(head: bytes) -> bool:
    """Return whether this is the beginning of a text in UTF-8; its last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not any(byte < 32 and byte not in _CONTROLS_IN_TEXT for byte in head)
