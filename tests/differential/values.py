"""Values of every type that Python and its usual libraries have, and how to see whether one is still what it was."""

import array
import asyncio
import collections
import csv
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import itertools
import pathlib
import queue
import sqlite3
import tempfile
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel, SecretStr, computed_field


@dataclass(frozen=True)
class Value:
    """How one is made, anew each time, and what is left of it after a run."""

    name: str
    make: Callable[[ExitStack], Any]
    left: Callable[[Any], Any] = lambda _: None


def rest(iterator: Any) -> list[Any]:
    """What an iterator still gives: the first few of an endless one."""
    return list(itertools.islice(iterator, 5))


def _file(stack: ExitStack, mode: str, content: Any) -> Any:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder, "file")
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return stack.enter_context(path.open(mode))


def _cursor(stack: ExitStack) -> Any:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    stack.callback(connection.close)
    return connection.execute("SELECT 1 UNION SELECT 2 UNION SELECT 3")


def _numbers() -> Iterator[int]:
    yield from range(3)


class Watched:
    """An object that counts what is done to it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __iter__(self) -> Iterator[int]:
        self.seen.append("iter")
        return iter([1, 2])

    def __len__(self) -> int:
        self.seen.append("len")
        return 2

    def __getitem__(self, key: Any) -> Any:
        self.seen.append("getitem")
        return key


class Proxy:
    """An object that answers to any name, as lazy ones do."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        self.asked.append(name)
        return lambda *_, **__: "computed"


class Hostile:
    """An object that minds being looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("do not look")

    __str__ = __repr__

    def __bool__(self) -> bool:
        raise RuntimeError("do not ask")

    def __len__(self) -> int:
        raise RuntimeError("do not count")


class Loading:
    """A lazy row: looking at what it has would ask the database."""

    def __init__(self) -> None:
        self.queries = 0

    @property
    def name(self) -> str:
        self.queries += 1
        return "loaded"


class Model(BaseModel):
    number: int = 1

    @computed_field
    @property
    def twice(self) -> int:
        _COMPUTED.append(1)
        return self.number * 2


_COMPUTED: list[int] = []


class Slots:
    __slots__ = ("a",)

    def __init__(self) -> None:
        self.a = 1


class Pair(NamedTuple):
    a: int
    b: Any


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    """A text of its own class."""


class Fields(dict[str, Any]):
    """A dict that counts its reads."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.reads = 0

    def __missing__(self, key: str) -> Any:
        self.reads += 1
        return None


@dataclass
class Record:
    a: int = 1
    rows: Any = field(default_factory=lambda: iter([1, 2, 3]))


def _cycle() -> Any:
    ring: dict[str, Any] = {"a": [1]}
    ring["a"].append(ring)
    return ring


async def _coroutine() -> int:
    return 1


async def _async_numbers() -> Any:
    yield 1


def _made(stack: ExitStack, make: Callable[[], Any], close: Callable[[Any], Any]) -> Any:
    made = make()
    stack.callback(lambda: close(made))
    return made


VALUES = [
    Value("generator", lambda _: _numbers(), rest),
    Value("generator expression", lambda _: (n * 2 for n in range(3)), rest),
    Value("iterator of a list", lambda _: iter([1, 2, 3]), rest),
    Value("map", lambda _: map(str, [1, 2, 3]), rest),
    Value("filter", lambda _: filter(None, [0, 1, 2]), rest),
    Value("zip", lambda _: zip([1, 2], "ab", strict=True), rest),
    Value("enumerate", lambda _: enumerate("ab"), rest),
    Value("reversed", lambda _: reversed([1, 2, 3]), rest),
    Value("endless count", lambda _: itertools.count(), rest),
    Value("endless repeat", lambda _: itertools.repeat("x"), rest),
    Value("dict items iterator", lambda _: iter({"a": 1, "b": 2}.items()), rest),
    Value("open text file", lambda s: _file(s, "r", "one\ntwo\n"), lambda f: (f.tell(), f.read(), f.closed)),
    Value("open binary file", lambda s: _file(s, "rb", b"one\ntwo\n"), lambda f: (f.tell(), f.read(), f.closed)),
    Value("BytesIO", lambda _: io.BytesIO(b"abc"), lambda f: (f.tell(), f.read())),
    Value("StringIO", lambda _: io.StringIO("abc"), lambda f: (f.tell(), f.read())),
    Value("csv reader", lambda _: csv.reader(["a,b", "c,d"]), rest),
    Value("csv dict reader", lambda _: csv.DictReader(["a,b", "1,2"]), rest),
    Value("database cursor", _cursor, lambda c: c.fetchall()),
    Value("coroutine", lambda s: _made(s, _coroutine, lambda c: c.close()), lambda c: c.cr_running),
    Value("async generator", lambda _: _async_numbers(), lambda g: g.ag_running),
    Value("lock", lambda _: threading.Lock(), lambda lock: lock.locked()),
    Value("event", lambda _: threading.Event(), lambda event: event.is_set()),
    Value("queue", lambda _: (q := queue.Queue(), q.put(1))[0], lambda q: q.qsize()),
    Value("future", lambda _: __import__("concurrent.futures").futures.Future(), lambda f: f.done()),
    Value("async event", lambda _: asyncio.Event(), lambda event: event.is_set()),
    Value("counting object", lambda _: Watched(), lambda w: w.seen),
    Value("proxy", lambda _: Proxy(), lambda p: p.asked),
    Value("hostile object", lambda _: Hostile()),
    Value("lazy row", lambda _: Loading(), lambda row: row.queries),
    Value("model with a computed field", lambda _: Model()),
    Value("secret", lambda _: SecretStr("hush")),
    Value("dataclass with an iterator", lambda _: Record(), lambda r: rest(r.rows)),
    Value("slots", lambda _: Slots(), lambda s: s.a),
    Value("named tuple", lambda _: Pair(1, iter([1, 2])), lambda p: rest(p.b)),
    Value("enum", lambda _: Colour.RED),
    Value("text of its own class", lambda _: Text("abc")),
    Value("dict of its own class", lambda _: Fields({"a": 1}), lambda d: (d.reads, dict(d))),
    Value("defaultdict", lambda _: collections.defaultdict(list, {"a": [1]}), len),
    Value("counter", lambda _: collections.Counter("aab"), len),
    Value("deque", lambda _: collections.deque([1, 2], maxlen=5), list),
    Value("chain map", lambda _: collections.ChainMap({"a": 1}, {"b": 2}), dict),
    Value("read-only mapping", lambda _: types.MappingProxyType({"a": 1}), dict),
    Value("keys of every type", lambda _: {1: "a", (1, 2): "b", None: "c", 1.5: "d"}, len),
    Value("set", lambda _: {1, 2, 3}, len),
    Value("range", lambda _: range(10**9), len),
    Value("bytearray", lambda _: bytearray(b"abc"), bytes),
    Value("memoryview", lambda _: memoryview(b"abc"), bytes),
    Value("array", lambda _: array.array("i", [1, 2]), list),
    Value("decimal", lambda _: decimal.Decimal("1.10")),
    Value("fraction", lambda _: fractions.Fraction(1, 3)),
    Value("date", lambda _: dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
    Value("duration", lambda _: dt.timedelta(days=1)),
    Value("uuid", lambda _: uuid.UUID(int=1)),
    Value("path", lambda _: pathlib.PurePath("a/b")),
    Value("exception", lambda _: ValueError("a", 1), lambda e: (e.args, e.__traceback__)),
    Value("function", lambda _: _numbers),
    Value("partial", lambda _: functools.partial(int, base=2), lambda p: p("10")),
    Value("class", lambda _: Slots),
    Value("module", lambda _: itertools),
    Value("weak reference", lambda s: weakref.ref(_made(s, Loading, lambda _: None))),
    Value("circle", lambda _: _cycle(), len),
    Value("half of a surrogate pair", lambda _: "a\ud83d"),
    Value("null character", lambda _: "a\0b"),
    Value("huge number", lambda _: 10**400),
    Value("not a number", lambda _: [float("inf"), float("-inf")]),
    Value("deep nesting", lambda _: functools.reduce(lambda inner, _: [inner], range(200), [])),
    Value("numpy array", lambda _: np.arange(6).reshape(2, 3), lambda a: a.tolist()),
    Value("numpy number", lambda _: np.float64(1.5)),
    Value("data frame", lambda _: pd.DataFrame({"a": [1, 2]}), lambda f: f.to_dict()),
    Value("message", lambda _: HumanMessage("hi", additional_kwargs={"x": [1]})),
    Value(
        "message of parts",
        lambda _: AIMessage([{"type": "text", "text": "hi"}, {"type": "reasoning", "reasoning": "r"}]),
    ),
    Value("document", lambda _: Document("text", metadata={"page": 1})),
]


def _holders(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(parts, max_size=4),
        st.lists(parts, max_size=4).map(tuple),
        st.lists(parts, max_size=4).map(collections.deque),
        st.lists(parts, max_size=4).map(iter),
        st.lists(parts, max_size=4).map(lambda held: (each for each in held)),
        st.dictionaries(st.text(max_size=8) | st.integers() | st.none(), parts, max_size=4),
        st.dictionaries(st.text(max_size=8), parts, max_size=4).map(types.MappingProxyType),
        st.builds(Record, st.integers(), parts),
        st.builds(Pair, st.integers(), parts),
        st.builds(Document, st.text(), metadata=st.dictionaries(st.text(max_size=8), parts, max_size=2)),
        st.builds(functools.partial, st.just(print), parts),
    )


# Values as they come: whatever is made is made of these.
ANY = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.text(st.characters(codec=None)),
        st.binary(),
        st.decimals(),
        st.fractions(),
        st.datetimes(timezones=st.just(dt.UTC)),
        st.timedeltas(),
        st.uuids(),
        st.ip_addresses(),
        st.binary().map(io.BytesIO),
        st.binary().map(bytearray),
        st.sampled_from(Colour),
        st.frozensets(st.integers(), max_size=4),
        st.builds(ValueError, st.text()),
        st.builds(Watched),
        st.builds(Proxy),
        st.builds(Loading),
        st.builds(Model),
    ),
    _holders,
    max_leaves=12,
)


def held(value: Any, depth: int = 0) -> Any:  # noqa: C901 - one case for each kind of value
    """Return what a value still holds, and what was done to it; iterators and files are read to their end."""
    if depth > 30:
        return type(value)
    match value:
        case list() | tuple() | collections.deque():
            parts = [held(each, depth + 1) for each in value]
        case dict() | types.MappingProxyType():
            parts = [(key, held(each, depth + 1)) for key, each in value.items()]
        case io.BytesIO():
            parts = [value.tell(), value.read()]
        case Record():
            parts = [value.a, held(value.rows, depth + 1)]
        case Document():
            parts = [value.page_content, held(value.metadata, depth + 1)]
        case functools.partial():
            parts = [held(value.args, depth + 1)]
        case Watched():
            parts = list(value.seen)
        case Proxy():
            parts = list(value.asked)
        case Loading():
            parts = [value.queries]
        case Iterator():
            parts = [held(each, depth + 1) for each in rest(value)]
        case _:
            return value
    return type(value).__name__, parts
