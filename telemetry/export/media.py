"""Files in spans that a backend keeps beside them: what may leave, and what stands for it in the span."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, NamedTuple

MAX_BYTES = 24 * 1024 * 1024
REFERENCE_HEAD = "@@@langfuseMedia:"
REFERENCE = re.compile(r"@@@langfuseMedia:type=(?P<type>[\w.+/-]+)\|id=(?P<id>[\w-]{22})\|source=\w+@@@")

Field = Literal["input", "output", "metadata"]
Source = Literal["base64_data_uri", "bytes"]

# How files of these kinds begin. All other kinds that are sent are known by what is said of them.
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftyphei", "image/heic"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
)
# Langfuse takes these. It takes archives and documents of office programs too, but their text is compressed: nobody
# can tell whether there are secrets in it.
_TEXT = frozenset(
    f"text/{name}" for name in ("plain", "html", "css", "csv", "markdown", "x-python", "x-typescript")
) | frozenset(f"application/{name}" for name in ("javascript", "x-yaml", "json", "xml", "rtf", "x-ndjson"))
_BINARY = (
    frozenset(f"image/{name}" for name in ("png", "jpeg", "jpg", "webp", "gif", "svg+xml", "tiff", "bmp", "avif"))
    | frozenset(f"audio/{name}" for name in ("mpeg", "mp3", "wav", "ogg", "oga", "aac", "mp4", "flac", "opus", "webm"))
    | frozenset(f"video/{name}" for name in ("mp4", "webm", "ogg", "mpeg", "quicktime", "x-msvideo", "x-matroska"))
    | {"image/heic", "application/pdf"}
)
_ALIASES = {
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/x-m4a": "audio/mp4",
    "text/xml": "application/xml",
}
# What a person could read in a file that is no text is a run of these.
_PRINTED = b"\t\n\r" + bytes(range(32, 127))
_TO_RUNS = bytes(ord("A") if code in _PRINTED else 0 for code in range(256))
_RUN = b"A" * 12


class Media(NamedTuple):
    """A file: its type, its content, and the hash that it is known by."""

    content_type: str
    content: bytes
    digest: bytes
    source: Source

    @property
    def sha256(self) -> str:
        """The hash in Base64."""
        return b64encode(self.digest).decode()

    @property
    def id(self) -> str:
        """The id that Langfuse derives from the hash."""
        return self.sha256[:22].replace("+", "-").replace("/", "_")

    @property
    def reference(self) -> str:
        """What stands for the file in a span."""
        return f"{REFERENCE_HEAD}type={self.content_type}|id={self.id}|source={self.source}@@@"


class Attachment(NamedTuple):
    """A file at its place in a span."""

    trace_id: str
    # None for a file of the trace itself.
    span_id: str | None
    field: Field
    media: Media


@dataclass
class Collector:
    """Takes the files out of a span; `is_clean` tells whether a text is free of what must not be sent."""

    is_clean: Callable[[str], bool]
    found: list[Media] = field(default_factory=list)

    def take(self, content: bytes, content_type: str | None, source: Source) -> str | None:
        """Return the reference that stands for a file; None for one that may not leave."""
        known = content_type_of(content, content_type)
        if known is None or not 0 < len(content) <= MAX_BYTES:
            return None
        text = _readable(content, known)
        with collecting(None):
            if text is None or not self.is_clean(text):
                return None
        media = Media(known, content, sha256(content).digest(), source)
        self.found.append(media)
        return media.reference


_current: ContextVar[Collector | None] = ContextVar("telemetry-media", default=None)


@contextmanager
def collecting(collector: Collector | None) -> Iterator[None]:
    """Have this collector take the files that are found in the block; None leaves them to be described."""
    token = _current.set(collector)
    try:
        yield
    finally:
        _current.reset(token)


def take(content: bytes, content_type: str | None, source: Source) -> str | None:
    """Return the reference that stands for a file; None where files are described, or this one may not leave."""
    current = _current.get()
    return current.take(content, content_type, source) if current else None


def content_type_of(content: bytes, said: str | None = None) -> str | None:
    """Return the type of a file that may be sent, by how it begins, or else by what is said of it."""
    if said in _TEXT:
        return said
    found = next((kind for at, magic, kind in _MAGIC if content.startswith(magic, at)), None)
    said = _ALIASES.get(said or "", said)
    return said if said in _TEXT or said in _BINARY else found


class TextWithMedia(str):
    """Text, and the files for which there are references in it."""

    __slots__ = ("media",)

    media: tuple[Media, ...]

    def __new__(cls, text: str, media: Sequence[Media]) -> "TextWithMedia":
        """Return the text with its files."""
        joined = super().__new__(cls, text)
        joined.media = tuple(media)
        return joined


@contextmanager
def collecting_apart() -> Iterator[list[Media]]:
    """Yield the files that are found in the block, where files are collected."""
    current = _current.get()
    apart = Collector(current.is_clean) if current else None
    with collecting(apart):
        yield apart.found if apart else []


def collect(text: str) -> "TextWithMedia | str":
    """Have the files of a text collected that was searched before, and return the text."""
    if isinstance(text, TextWithMedia) and (current := _current.get()):
        current.found += text.media
    return text


def _readable(content: bytes, content_type: str) -> str | None:
    """Return what a person could read in a file; None for a text in another encoding than UTF-8."""
    if content_type not in _TEXT and content_type != "image/svg+xml":
        # Words of one byte a character, and those of two.
        return b"\n".join((*_words(content), *_words(content.replace(b"\0", b"")))).decode()
    try:
        return None if b"\0" in content else content.decode()
    except UnicodeDecodeError:
        return None


def _words(content: bytes) -> Iterator[bytes]:
    # To search for a word is by far faster than an expression.
    runs = content.translate(_TO_RUNS) + b"\0"
    start = runs.find(_RUN)
    while start >= 0:
        end = runs.find(b"\0", start)
        yield content[start:end]
        start = runs.find(_RUN, end)
