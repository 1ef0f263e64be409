"""Convert any Python value to one that JSON can represent, without consuming it."""

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from io import IOBase
from itertools import count
from typing import Any

from pydantic import BaseModel

_MAX_DEPTH = 28
# Limits a value that contains itself.
_MAX_PARTS = 100_000


def to_plain(value: Any) -> Any:
    """Return a value of dictionaries, lists, text and numbers only."""
    return _plain(value, 0, count())


def _plain(value: Any, depth: int, parts: Iterator[int]) -> Any:
    if value is None or value.__class__ in (str, bool, int, float, bytes):
        return value
    if depth > _MAX_DEPTH or next(parts) > _MAX_PARTS:
        return "[withheld: nested too deeply]"
    kind = type(value)
    if isinstance(value, IOBase) or hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
        return f"[a {kind.__name__}, which is not read]"
    value = _opened(value)
    if isinstance(value, Mapping):
        keys = {key: key if isinstance(key, str) else str(_plain(key, depth + 1, parts)) for key in value}
        return {keys[key]: _plain(part, depth + 1, parts) for key, part in value.items()}
    if isinstance(value, (list, tuple, Set)):
        return [_plain(part, depth + 1, parts) for part in value]
    return value if value is None or value.__class__ in (str, bool, int, float, bytes) else _text(value)


def _opened(value: Any) -> Any:
    """Return the content of a value of another class as a type that JSON has."""
    if isinstance(value, Enum):
        value = value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name, None) for each in fields(value)}
    for kind, opened in _OPENED.items():
        if isinstance(value, kind):
            return opened(value)
    return value


_OPENED: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    str: str.__str__,
    int: int,
    float: float,
    bytearray: bytes,
    memoryview: bytes,
    BaseModel: dict,
    BaseException: lambda error: "".join(traceback.format_exception_only(error)).strip(),
    deque: list,
}


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - it calls a method of the program's own object
        return f"[a {type(value).__name__} that cannot be written]"
