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


def dump(value: Any) -> str:
    """Return a value as JSON that every parser takes; a string stays as it is."""
    return value if isinstance(value, str) else to_json(value, inf_nan_mode="null", fallback=str).decode()


def _parse_odd(text: str) -> Any:
    # Half of a surrogate pair may be escaped in JSON and cannot be UTF-8.
    try:
        return from_json(json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
