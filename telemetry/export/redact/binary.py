"""Files in text: what they are, how large, and a hash to tell them apart; or a reference where a backend keeps them."""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from hashlib import sha256
from string import ascii_letters, digits

from telemetry.export.media import Source, take

_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "media/riff"),
    (b"%PDF", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
)
_BETWEEN_LINES = str.maketrans("", "", ">|# \t\r\n\f\v")
_URLSAFE = str.maketrans("-_", "+/")

# A text is looked at in pieces of so many characters: whatever is twice as long and in base64 fills one of them.
LONG = 4096
# A longer run of letters and digits is data that nobody reads, and slow to search.
_LONGEST_WORD = 16_384
_ALPHABET = r"0-9A-Za-z+/_\-"
_FILLED = re.compile(rf"[{_ALPHABET}=\\\r\n]{{{LONG}}}")
_ALL = re.compile(rf"[{_ALPHABET}]*={{0,2}}")
_BEFORE = re.compile(rf"[{_ALPHABET}]*")
_EOL = r"(?:\r?\n|(?:\\+r)?\\+n)"
_FILE = re.compile(rf"[{_ALPHABET}]{{60,}}={{0,2}}(?:{_EOL}[{_ALPHABET}]{{16,}}={{0,2}})*")
# The same with what quotes or comments begin its lines with.
_PIECE = re.compile(rf"[{_ALPHABET}]{{60,}}={{0,2}}(?:{_EOL}[ \t>|#]*[{_ALPHABET}]{{16,}}={{0,2}})*".encode())
_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.=+-]+)*;base64,$")
# What a file in base64 has somewhere, and prose hardly ever.
MIXED = "[A-Za-z][0-9]+[A-Za-z]"
_MIXED = re.compile(MIXED)
# All that base64 is written with becomes one character: a run of it is then found by a search for a word.
_RUN = b"A" * 60
_TO_RUNS = bytes(ord("A") if chr(code) in f"{ascii_letters}{digits}+/_-" else 0 for code in range(256))
_TOKEN_HEAD, _TOKEN_TAIL = re.compile(r"eyJ[\w-]*\.$"), re.compile(r"[\w.=-]*")


def describe(content: bytes, kind: str | None = None, source: Source = "bytes") -> str:
    """Return what stands for a file's content."""
    if reference := take(content, kind, source):
        return reference
    return _described(content, kind or next((name for magic, name in _MAGIC if content.startswith(magic)), "binary"))


def _described(content: bytes, kind: str) -> str:
    return f"[{kind}, {len(content)} bytes, sha256 {sha256(content).hexdigest()[:16]}]"


def describe_file(value: str | bytes) -> str:
    """Return what stands for a file that was set aside: bytes, a data: URI, or base64."""
    if isinstance(value, bytes):
        return describe(value)
    if value.startswith("data:"):
        return describe_data_uri(value)
    return (describe_base64(value) if _ALL.fullmatch(value) else None) or describe_long_base64(value)


def describe_data_uri(uri: str) -> str:
    """Return what stands for a data: URI."""
    head, _, encoded = uri.partition(",")
    kind = head.removeprefix("data:").split(";")[0]
    content = _decode(encoded)
    if content is None:
        return _described(encoded.encode(), kind)
    return describe(content, kind, "base64_data_uri")


def describe_base64(text: str) -> str | None:
    """Return what stands for a long run of base64, in one line or in many; None where it is only a word."""
    is_long = len(text) > _LONGEST_WORD
    content = _content(text) if is_long or _MIXED.search(text) else None
    if content is None:
        return _described(text.encode(), "text without blanks") if is_long else None
    return describe(content, source="base64_data_uri")


def _content(text: str) -> bytes | None:
    if "\n" in text or "\\" in text:
        text = text.translate(_BETWEEN_LINES)
    if "\\" in text:
        text = text.replace("\\r", "").replace("\\n", "").replace("\\", "")
    if len(text) < 120:
        return None
    # A hash or a run of one letter is not made of capitals and small letters alike.
    sample = text[:LONG]
    if sample == sample.lower() or sample == sample.upper():
        return None
    return _decode(text)


def has_long_base64(text: str) -> bool:
    """Whether a text holds so much base64 that expressions should not see it."""
    return any(_is_filled(text, at) for at in _candidates(text))


def has_run(text: str) -> bool:
    """Whether a text holds as much base64 in one piece as a line of a file has at least."""
    return _RUN in text.encode().translate(_TO_RUNS)


def may_hold_file(text: str) -> bool:
    """Whether a text holds such a piece that is more than a hash: a file has capitals and small letters alike."""
    encoded = text.encode()
    runs = encoded.translate(_TO_RUNS)
    at = runs.find(_RUN)
    while at >= 0:
        found = _PIECE.match(encoded, at)
        piece = found.group() if found else b""
        if len(piece) > _LONGEST_WORD or piece not in (piece.lower(), piece.upper()):
            return True
        at = runs.find(_RUN, at + len(piece)) if piece else -1
    return False


def describe_long_base64(text: str) -> str:
    """Return text in which descriptions stand for the files of more than a few hundred bytes that are in it."""
    parts: list[str] = []
    copied = looked_at = 0
    for at in _candidates(text):
        if at < looked_at or not _is_filled(text, at):
            continue
        before = _BEFORE.match(text[max(at - LONG, copied) : at][::-1])
        found = _FILE.search(text, at - (before.end() if before else 0), at + LONG)
        found = found and _FILE.match(text, found.start())
        looked_at = found.end() if found else at + LONG
        if found and (edit := _describe_found(text, *found.span(), copied)):
            start, end, description = edit
            parts += (text[copied:start], description)
            copied = looked_at = end
    return "".join((*parts, text[copied:])) if parts else text


def _describe_found(text: str, start: int, end: int, copied: int) -> tuple[int, int, str] | None:
    head = text[max(start - 200, copied) : start]
    if uri := _DATA_URI.search(head):
        start -= len(uri.group())
        return start, end, describe_data_uri(text[start:end])
    if (token := _TOKEN_HEAD.search(head)) and (tail := _TOKEN_TAIL.match(text, end)):
        return start - len(token.group()), tail.end(), "[redacted token]"
    description = describe_base64(text[start:end])
    return (start, end, description) if description else None


def _candidates(text: str) -> list[int]:
    # Prose has a blank in each piece: to look for it is all that prose costs.
    return [at for at in range(0, len(text) - LONG + 1, LONG) if text.find(" ", at, at + LONG) < 0]


def _is_filled(text: str, at: int) -> bool:
    return bool(_FILLED.match(text, at)) and has_run(text[at : at + LONG])


def _decode(text: str) -> bytes | None:
    plain = text.rstrip("=")
    if "-" in plain or "_" in plain:
        plain = plain.translate(_URLSAFE)
    try:
        return b64decode(plain[: len(plain) - (len(plain) % 4 == 1)] + "=" * (-len(plain) % 4))
    except (NotBase64, ValueError):
        return None
