"""Values of any kind are read for a trace without being consumed, computed or changed, and up to a budget only."""

import csv
import gc
import io
import itertools
import json
import sqlite3
import time
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

import pytest
from hypothesis import given, strategies
from pydantic import BaseModel, Field, SecretStr, computed_field, field_serializer

from telemetry.plain_data import READ_BUDGET, plain, safe_json, safe_text


def cursor() -> sqlite3.Cursor:
    return sqlite3.connect(":memory:").execute("select 1 union select 2")


class Once:
    """An iterable that gives its items away."""

    def __init__(self) -> None:
        self.items = [1, 2]

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        if not self.items:
            raise StopIteration
        return self.items.pop(0)


class ListThatGivesAway(list[int]):
    def __iter__(self) -> Any:
        return iter([self.pop() for _ in range(len(self))])


CONSUMABLE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "generator": (lambda: (each for each in "ab"), list),
    "map": (lambda: map(str, [1, 2]), list),
    "zip": (lambda: zip("ab", "cd", strict=True), list),
    "file": (lambda: io.StringIO("text"), lambda file: file.read()),
    "bytes": (lambda: io.BytesIO(b"text"), lambda file: file.read()),
    "cursor": (cursor, list),
    "csv": (lambda: csv.reader(["a,b", "c,d"]), list),
    "an iterator of its own": (Once, list),
    "a list of its own": (lambda: ListThatGivesAway([1, 2]), sorted),
}


@pytest.mark.parametrize("name", CONSUMABLE)
def test_what_can_be_consumed_is_left_alone(name: str) -> None:
    """A value holds afterwards what it held before, wherever it stands in another."""
    make, read = CONSUMABLE[name]
    value = make()
    safe_json({"deep": [{"in": (value,)}], "beside": value})
    assert read(value) == read(make())


def test_what_never_ends_is_named() -> None:
    """An endless iterator costs nothing."""
    assert safe_text(itertools.count()) == '"<itertools.count>"'


class Answers:
    """Answers whatever it is asked, and notes that it was."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def __getattribute__(self, name: str) -> Any:
        if name != "asked":
            object.__getattribute__(self, "asked").append(name)
        return object.__getattribute__(self, "asked")


class Slow:
    def __repr__(self) -> str:
        raise AssertionError("asked for its text")

    __str__ = __len__ = __bool__ = __iter__ = __eq__ = __hash__ = __repr__  # pyright: ignore[reportAssignmentType] - none is to be called


class Proxy:
    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - as proxies do
        raise AssertionError("asked what it stands for")


class Computes(BaseModel):
    stored: int = 1
    hidden: str = Field("hidden", exclude=True)
    password: SecretStr = SecretStr("hidden")
    rewritten: str = "hidden"
    items: Any = None

    @computed_field
    @property
    def costly(self) -> int:
        raise AssertionError("computed")

    @field_serializer("rewritten")
    def rewrite(self, _: str) -> str:
        raise AssertionError("computed")


@pytest.mark.parametrize("make", [Slow, Proxy, MagicMock, SimpleNamespace])
def test_what_computes_is_named(make: type) -> None:
    """An object that would compute, block or raise when it is looked at is named by its type."""
    value = make()
    assert safe_json([value]) == f'["<{type(value).__module__}.{type(value).__qualname__}>"]'


def test_a_proxy_is_asked_nothing() -> None:
    """What answers attributes on demand is not asked for any."""
    value = Answers()
    safe_json([value, {"in": value}])
    assert value.asked == []


def test_a_model_shows_what_it_stores() -> None:
    """Fields are shown; what is computed, excluded, secret or rewritten by its own code is not."""
    assert plain(Computes.model_validate({"items": iter([1])})) == {
        "stored": 1,
        "password": "**********",
        "rewritten": "<str>",
        "items": "<list_iterator>",
    }


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    rest: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    x: int


Pair = namedtuple("Pair", "a b")
CIRCLE: dict[str, Any] = {"x": 1}
CIRCLE["self"] = CIRCLE
SAID: list[tuple[Any, str]] = [
    ({"a": [1, 2.5, None, True, "text"]}, '{"a":[1,2.5,null,true,"text"]}'),
    (Pair(1, "b"), '[1,"b"]'),
    (OrderedDict(a=1), '{"a":1}'),
    (defaultdict(list, a=[1]), '{"a":[1]}'),
    (deque([1, 2]), "[1,2]"),
    ({1: "a", (1, 2): "b", Colour.RED: "c"}, '{"1":"a","[1,2]":"b","red":"c"}'),
    ({3}, "[3]"),
    ({"a": 1}.keys(), '["a"]'),
    (Colour.RED, '"red"'),
    (Point(1, [Slotted(2)]), '{"x":1,"rest":[{"x":2}]}'),
    (Computes, f'"<class {__name__}.Computes>"'),
    (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), '"2026-01-02T03:04:00Z"'),
    (timedelta(seconds=3), '"PT3S"'),
    (Decimal("1.50"), '"1.50"'),
    (UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
    (PurePath("a/b"), '"a/b"'),
    (b"abc", '"YWJj"'),
    (float("nan"), "null"),
    ([10**5000], '["<int>"]'),
    (ValueError("no", 1), '"ValueError: no; 1"'),
    ("half \ud83d", '"half ?"'),
    (CIRCLE, '{"x":1,"self":"<dict>"}'),
]


@pytest.mark.parametrize(("value", "said"), SAID)
def test_what_can_be_said_is_said(value: Any, said: str) -> None:
    """Values of Python's own types are written as JSON."""
    assert safe_json(value) == said


def test_deep_nesting_ends() -> None:
    """However deep a value is, reading it ends with a name."""
    value: Any = []
    for _ in range(100_000):
        value = [value]
    assert "<list>" in safe_json(value)
    while value:  # taken apart by hand: Python's own way recurses
        value = value[0]


def test_what_is_shared_many_times_ends() -> None:
    """A list that holds the same list twice, and so on, would be endless as JSON: it ends at the budget."""
    value: Any = ["x"]
    for _ in range(25):
        value = [value, value]
    assert len(safe_json(value)) < 2 * READ_BUDGET


@pytest.mark.parametrize("odd", [iter([1]), Colour.RED, {1}, b"abc", 2**80, float("nan"), "half \ud83d", {None: 1}])
def test_one_odd_part_changes_no_other(odd: Any) -> None:
    """What stands beside a value of an unusual type is written as it is without it."""
    beside = {"rows": [{"id": 1, "name": "é", "price": 1.5, "none": None, "yes": True}] * 3}
    said = json.loads(safe_json({"odd": odd, **beside}))
    said.pop("odd")
    assert said == json.loads(safe_json(beside)) == beside


@pytest.mark.parametrize("make", [lambda n: list(range(n)), lambda n: {str(each): each for each in range(n)}])
def test_a_large_value_costs_its_beginning(make: Callable[[int], Any]) -> None:
    """Ten million items cost what some ten thousand cost, and how many were left out is said."""
    value = make(3_000_000)
    gc.disable()
    start = time.process_time()
    said = safe_json(value)
    cost = time.process_time() - start
    gc.enable()
    assert len(said) < 2 * READ_BUDGET
    assert "left out" in said[-80:]
    assert cost < 0.5


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers(-(2**62), 2**62) | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
)


@given(JSON)
def test_json_stays_as_it_is(value: Any) -> None:
    """What is JSON already is read back as the same."""
    assert json.loads(safe_json(value)) == json.loads(json.dumps(value).encode("utf-8", "replace"))
