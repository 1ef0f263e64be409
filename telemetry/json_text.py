"""JSON in attribute values: read leniently, as programs write it; written strictly, as backends read it."""

import json
import re
from typing import Any

from pydantic_core import from_json, to_json

_OPENING = re.compile(r"[ \n\r\t]*+[{\[]")
# Half of a surrogate pair may be escaped in JSON and cannot be UTF-8.
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text: Any) -> Any:
    """Return the object or the list in a JSON string; None if it contains neither."""
    if not isinstance(text, str) or not _OPENING.match(text):
        return None
    try:
        return from_json(text)
    except ValueError:
        # Most text that begins like JSON and is none is JSON that was cut: to read it again would cost twice as much.
        return _parse_odd(text) if _HALF_PAIR.search(text) else None


def dump(value: Any) -> Any:
    """Return a value as JSON that every parser accepts; strings and bytes are returned unchanged."""
    return value if isinstance(value, (str, bytes)) else written(value).decode()


def written(value: Any) -> bytes:
    """Return a value as JSON in UTF-8; a string is quoted."""
    return to_json(value, inf_nan_mode="null", fallback=str, bytes_mode="base64")


def _parse_odd(text: str) -> Any:
    try:
        return from_json(json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
