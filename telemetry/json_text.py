"""JSON in attribute values: read as leniently as it was written, written as strictly as backends read."""

import json
from typing import Any

from pydantic_core import from_json, to_json


def parse(text: Any) -> Any:
    """Return the object or the list that a string says in JSON; None where it says neither."""
    if not isinstance(text, str) or text.lstrip(" \n\r\t")[:1] not in ("{", "["):
        return None
    try:
        return from_json(text)
    except ValueError:
        return _parse_odd(text)


def dump(value: Any) -> Any:
    """Return a value as JSON that every parser takes; a string, and bytes, stay as they are."""
    return value if isinstance(value, (str, bytes)) else written(value).decode()


def written(value: Any) -> bytes:
    """Return the JSON of a value in UTF-8, of a string too."""
    return to_json(value, inf_nan_mode="null", fallback=str, bytes_mode="base64")


def _parse_odd(text: str) -> Any:
    # Half of a surrogate pair may be escaped in JSON and cannot be UTF-8.
    try:
        return from_json(json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
