"""Read files as text: in any encoding, and out of PDF and Office documents."""

import codecs
import sys
from pathlib import Path

import anyio

from app.files.document_text import READERS

# A document that takes longer is not read.
TIMEOUT_S = 30
_CONTROLS_IN_TEXT = frozenset(b"\t\n\r\f\b\x1b")
_WITH_NULS = ("utf_16", "utf_32", "utf_16_le", "utf_16_be")
_LEGACY = ("utf_16", "cp1252", "cp1251", "cp932", "gb18030", "cp949")
# The most of a text in Western Europe's encoding that is not ASCII, as a fraction.
_MOST_ACCENTS = 0.3
_DOCUMENT_TEXT = str(Path(__file__).with_name("document_text.py"))


class DocumentError(ValueError):
    """A document that cannot be read; the message says why."""


def is_document(media_type: str) -> bool:
    """Return whether `document_text` can read files of this type."""
    return media_type in READERS


def encoding_of(head: bytes) -> str | None:
    """Return the encoding of a text that begins like this, None if it is no text.

    The last character may be incomplete. UTF-8 is recognized for certain, UTF-16 by its marks or zeros, and others by
    which of a few widely used ones fits best.

    Example:
        >>> encoding_of("Größe;Müller;Straße".encode("cp1252"))
        'cp1252'
    """
    if not _has_controls(head):
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)
        except UnicodeDecodeError:
            return _best(head, _LEGACY) or _western(head)
        return "utf_8_sig" if head.startswith(codecs.BOM_UTF8) else "utf_8"
    is_wide = b"\0" in head or head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    found = _best(head, _WITH_NULS) if is_wide else None
    return found if found and not _has_controls(head.decode(found, "ignore").encode()) else None


def _has_controls(text: bytes) -> bool:
    return any(byte < 32 and byte not in _CONTROLS_IN_TEXT for byte in text)


def _best(head: bytes, encodings: tuple[str, ...]) -> str | None:
    from charset_normalizer import from_bytes  # only few files need it

    # A character has at most four bytes, of which the last ones may be missing.
    for end in range(len(head), max(len(head) - 4, 0), -1):
        if found := from_bytes(head[:end], cp_isolation=list(encodings)).best():
            return found.encoding
    return None


def _western(head: bytes) -> str | None:
    accents = sum(byte > 127 for byte in head)
    return "cp1252" if accents <= _MOST_ACCENTS * len(head) else None


async def document_text(content: bytes, media_type: str, characters: int) -> str:
    """Return the beginning of the text of a PDF or Office document.

    Raise `DocumentError` for one that is damaged, has a password, or takes too much memory or time.
    """
    command = [sys.executable, "-I", _DOCUMENT_TEXT, media_type, str(characters)]
    try:
        with anyio.fail_after(TIMEOUT_S):
            # Without the service's variables, because its secrets are among them.
            done = await anyio.run_process(command, input=content, check=False, env={})
    except TimeoutError:
        raise DocumentError("it takes too long to read") from None
    if done.returncode == 1:
        raise DocumentError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    if done.returncode:
        raise DocumentError("it is too large to read")
    return done.stdout.decode()
