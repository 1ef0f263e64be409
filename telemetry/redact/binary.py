"""Files in text: what they are, how large, and a hash to tell them apart."""

import hashlib
import re
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64

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


def described(content: bytes, kind: str | None = None) -> str:
    """Return what stands for a file's content."""
    kind = kind or next((name for magic, name in _MAGIC if content.startswith(magic)), "binary")
    return f"[{kind}, {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:16]}]"


def data_uri(uri: str) -> str:
    """Return what stands for a data: URI."""
    head, _, encoded = uri.partition(",")
    kind = head.removeprefix("data:").split(";")[0]
    content = _decoded(encoded)
    return described(encoded.encode() if content is None else content, kind)


def base64(text: str) -> str | None:
    """Return what stands for a long run of base64; None where it is only a long word."""
    # A word, a hash or a run of one letter is not made of capitals, small letters and digits alike.
    if not all(re.search(part, text) for part in ("[A-Z]", "[a-z]", "[0-9]")):
        return None
    content = _decoded(text)
    return None if content is None else described(content)


def _decoded(text: str) -> bytes | None:
    plain = text.rstrip("=").translate(str.maketrans("+/", "-_"))
    try:
        return urlsafe_b64decode(plain[: len(plain) - (len(plain) % 4 == 1)] + "=" * (-len(plain) % 4))
    except (NotBase64, ValueError):
        return None
