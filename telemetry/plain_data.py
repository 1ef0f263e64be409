"""Read a program's values for a trace, without consuming, computing or changing anything.

Only types whose parts can be read without side effects are read, through the base type's own methods. A value that
overrides them, computes attributes, iterates once or accesses a database is replaced by its type's name. Reading stops
at a budget.
"""

import json
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, NoneType
from typing import Any, NoReturn
from uuid import UUID

import orjson
from pydantic import BaseModel, SecretBytes, SecretStr

from telemetry.json_text import written
from telemetry.large_files import SHORTEST, set_aside

# Longer text is truncated here; shorter text is truncated after redaction, so that no secret is cut in two.
LONGEST = 1_000_000
# How many characters of a value are read: as many as a span holds by default.
READ_BUDGET = 256_000
# Deeper values are replaced by their type's name.
_DEEPEST = 32
_LONGEST_INT = 4_096  # bits
_HIDDEN = "**********"
_STRICT = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_NUMBERS = frozenset((int, float, bool, NoneType))


def _same(value: Any) -> Any:
    return value


@dataclass(slots=True)
class Budget:
    """How many characters of a value may still be read; `shape` may return a replacement for a part."""

    left: int = READ_BUDGET
    shape: Callable[[Any], Any] = _same


def plain(value: Any, budget: Budget | None = None) -> Any:
    """Return a value as dicts, lists, text and numbers for JSON; what cannot be read becomes its type's name."""
    return _read(value, budget or Budget(), ())


def safe_json(value: Any, budget: Budget | None = None) -> str:
    """Return the JSON of any value; a string is quoted."""
    budget = budget or Budget()
    return (json_of_builtins(value, budget) or to_bytes(plain(value, budget))).decode()


def safe_text(value: Any) -> str:
    """Return a string unchanged, and any other value as JSON."""
    return truncate_long(str.__str__(value)) if is_a(value, str) else safe_json(value)


def to_bytes(data: Any) -> bytes:
    """Return the JSON of plain data in UTF-8; half of a surrogate pair becomes a question mark."""
    try:
        return written(data)
    except ValueError:
        return json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")


class _UnreadableError(Exception):
    """A value is too large, or holds something else than dicts, lists, text and numbers."""


class _Room:
    """A file that takes so many bytes and no more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            raise _UnreadableError


class _Builtins(pickle.Pickler):
    """Passes over a value in C, without code of the value's own: the standard library's only encoder that can stop."""

    def reducer_override(self, _: Any) -> NoReturn:
        raise _UnreadableError


def json_of_builtins(value: Any, budget: Budget) -> bytes | None:
    """Return the JSON of a value of Python's own types, as most are; None for one that has to be read part by part.

    It is fast: both passes are made in C. The first one keeps to the budget, and neither consumes anything: a part that
    another thread replaces between them is refused by the second.
    """
    room = _Room(budget.left)
    pickler = _Builtins(room, pickle.HIGHEST_PROTOCOL)
    pickler.fast = True  # a part that is there twice counts twice, as it does in JSON
    try:
        pickler.dump(value)
        data = orjson.dumps(value, option=_STRICT)
    except Exception:  # noqa: BLE001 - the slower way reads whatever it is
        return None
    budget.left = room.left
    return data


def is_a(value: Any, kind: type) -> bool:
    """Return whether a value is of this class, without calling its code: a proxy would compute its target."""
    return kind in type(value).__mro__


def type_name(value: Any) -> str:
    """Return the name that replaces a value that is not read, such as `<generator>` or `<sqlite3.Cursor>`."""
    return f"<{_qualified(type(value))}>"


def truncate_long(text: str) -> str:
    """Return text, a note for a file, or the first lines of a very long text.

    A cut at the end of a line cuts no secret in two.
    """
    if len(text) < SHORTEST:
        return text
    if note := set_aside(text):
        return note
    if len(text) <= LONGEST:
        return text
    head = text[: LONGEST // 8]
    head = head[: head.rfind("\n") + 1]
    return f"{head}[… {len(text) - len(head)} characters left out …]"


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass or a pydantic model as they are stored; None for anything else."""
    kind = type(value)
    if BaseModel in kind.__mro__:
        return _model_fields(value)
    declared = _attribute(kind, "__dataclass_fields__")
    return dict(_stored(value, declared)) if type(declared) is dict else None


def _read(value: Any, budget: Budget, above: tuple[int, ...]) -> Any:
    kind = type(value)
    if kind is str:
        value = truncate_long(value)
        budget.left -= len(value)
        return value
    budget.left -= 8
    if kind in _NUMBERS:
        return value if kind is not int or value.bit_length() < _LONGEST_INT else type_name(value)
    if id(value) in above or len(above) > _DEEPEST:
        return type_name(value)
    try:
        if leaf := _LEAVES.get(kind):
            return _read_leaf(leaf, value, budget)
        shaped = budget.shape(value)
        read = _CONTAINERS.get(type(shaped), _read_by_type)
        return read(shaped, budget, (*above, id(value)))
    except Exception:  # noqa: BLE001 - changed by another thread meanwhile, or an unusual class
        return type_name(value)


def _read_by_type(value: Any, budget: Budget, above: tuple[int, ...]) -> Any:
    for base in type(value).__mro__:
        if base in _CONTAINERS:
            return _CONTAINERS[base](value, budget, above)
        if base in _LEAVES:
            return _read_leaf(_LEAVES[base], value, budget)
    if (held := fields_of(value)) is not None:
        return _read_items(held.items(), len(held), budget, above)
    return type_name(value)


def _read_leaf(read: Callable[[Any], Any], value: Any, budget: Budget) -> Any:
    # The value of a leaf is plain, or of a class that the JSON writer knows.
    found = read(value)
    if type(found) is bytes:
        found = set_aside(found) or found
    elif type(found) is str:
        found = truncate_long(found)
    if type(found) in (str, bytes):
        budget.left -= len(found)
    return found


def _read_dict(value: Any, budget: Budget, above: tuple[int, ...]) -> dict[str, Any]:
    size = dict.__len__(value)
    # Copied at once: another thread may add to it meanwhile.
    return _read_items(list(islice(dict.items(value), budget.left // 8 + 1)), size, budget, above)


def _read_items(items: Iterable[tuple[Any, Any]], size: int, budget: Budget, above: tuple[int, ...]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for at, (key, part) in enumerate(items):
        if budget.left < 0:
            data["…"] = f"[… {size - at} further fields left out …]"
            break
        name = key if type(key) is str else _key(key)
        budget.left -= len(name)
        if type(part) is str and len(part) < SHORTEST:  # as `_read` does; most parts are short text
            budget.left -= len(part)
            data[name] = part
        else:
            data[name] = _read(part, budget, above)
    return data


def _key(key: Any) -> str:
    read = _read(key, Budget(LONGEST), ())
    return read if type(read) is str else to_bytes(read).decode()


def _reader(iterate: Callable[[Any], Iterator[Any]], length: Callable[[Any], int]) -> Callable[..., list[Any]]:
    def read(value: Any, budget: Budget, above: tuple[int, ...]) -> list[Any]:
        size, data = length(value), []
        for item in iterate(value):
            if budget.left < 0:
                data.append(f"[… of {size} items the others left out …]")
                break
            data.append(_read(item, budget, above))
        return data

    return read


def _stored(value: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the fields in an object's `__dict__` or slots; properties are not computed."""
    held = _dict_of(value)
    for name in names:
        if name in held:
            yield name, held[name]
        elif type(slot := _attribute(type(value), name)) is MemberDescriptorType:
            try:
                yield name, slot.__get__(value)
            except AttributeError:
                continue


def _attribute(kind: type, name: str) -> Any:
    """Return what a class or its bases define under a name, without calling a metaclass."""
    for base in type.__getattribute__(kind, "__mro__"):
        if name in (defined := type.__getattribute__(base, "__dict__")):
            return defined[name]
    return None


def _dict_of(value: Any) -> dict[str, Any]:
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}


def _model_fields(value: Any) -> dict[str, Any]:
    # What is stored beside the declared fields, such as a cached property, is not shown.
    kind = type(value)
    declared, rewritten = kind.__pydantic_fields__, _rewritten_fields(kind)
    data = {
        name: type_name(part) if name in rewritten else part
        for name, part in _dict_of(value).items()
        if (field := declared.get(name)) is not None and not field.exclude
    }
    extra = object.__getattribute__(value, "__pydantic_extra__") or {}
    every = "*" in rewritten
    return {**data, **{name: type_name(part) if every else part for name, part in extra.items()}}


@lru_cache(maxsize=256)
def _rewritten_fields(kind: type[BaseModel]) -> frozenset[str]:
    """Return the fields that a model writes by code of its own, which is not run: they stay hidden."""
    decorators = kind.__pydantic_decorators__
    names = {name for each in decorators.field_serializers.values() for name in each.info.fields}
    if decorators.model_serializers:
        names.add("*")
    if "*" in names:
        names.update(kind.__pydantic_fields__)
    for name, field in kind.__pydantic_fields__.items():
        if any("Serializer" in type(each).__name__ for each in field.metadata):
            names.add(name)
    return frozenset(names)


def _qualified(kind: type) -> str:
    module = type.__getattribute__(kind, "__module__")
    name = type.__getattribute__(kind, "__qualname__")
    return name if module == "builtins" else f"{module}.{name}"


def _error(value: BaseException) -> str:
    arguments = BaseException.args.__get__(value)  # pyright: ignore[reportAttributeAccessIssue] - a slot of the class
    words = "; ".join(each if type(each) is str else safe_json(each, Budget(1_000)) for each in arguments)
    return f"{_qualified(type(value))}: {words}" if words else _qualified(type(value))


_CONTAINERS: dict[type, Callable[[Any, Budget, tuple[int, ...]], Any]] = {
    dict: _read_dict,
    list: _reader(list.__iter__, list.__len__),
    tuple: _reader(tuple.__iter__, tuple.__len__),
    set: _reader(set.__iter__, set.__len__),
    frozenset: _reader(frozenset.__iter__, frozenset.__len__),
    deque: _reader(deque.__iter__, deque.__len__),
    type({}.keys()): _reader(iter, len),
    type({}.values()): _reader(iter, len),
    type({}.items()): _reader(iter, len),
    Enum: lambda value, budget, above: _read(object.__getattribute__(value, "_value_"), budget, above),
}

# Python's own code creates their text, and it is short.
_LEAVES: dict[type, Callable[[Any], Any]] = {
    SecretStr: lambda _: _HIDDEN,
    SecretBytes: lambda _: _HIDDEN,
    str: str.__str__,
    bytes: lambda value: value if type(value) is bytes else bytes.__getitem__(value, slice(None)),
    bytearray: lambda value: bytes(memoryview(value)[: LONGEST + 1]),
    int: lambda value: int.__add__(value, 0),
    float: lambda value: float.__add__(value, 0.0),
    datetime: _same,
    date: _same,
    time: _same,
    timedelta: _same,
    UUID: UUID.__str__,
    Decimal: Decimal.__str__,
    Fraction: Fraction.__str__,
    complex: complex.__repr__,
    PurePath: PurePath.__str__,
    **{kind: kind.__str__ for kind in (IPv4Address, IPv6Address, IPv4Network, IPv6Network)},
    range: range.__repr__,
    type: lambda value: f"<class {_qualified(value)}>",
    FunctionType: lambda value: f"<function {FunctionType.__getattribute__(value, '__qualname__')}>",
    BuiltinFunctionType: lambda value: f"<function {value.__name__}>",
    MethodType: lambda _: "<method>",
    BaseException: _error,
}
