"""Caches: one with a limit on weight, and one for the last argument only."""

from collections.abc import Callable, Iterable, Sequence
from sys import getsizeof
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

# The bytes of a cache entry besides its key and its value.
ENTRY_BYTES = 150


def size_of(value: Any) -> int:
    """Return the approximate bytes of a value that consists of text, numbers, lists and dictionaries."""
    total, left = 0, [value]
    while left:
        each = left.pop()
        total += getsizeof(each)
        if each.__class__ is str:
            continue
        if isinstance(each, dict):
            left += (*each.keys(), *each.values())
        elif isinstance(each, (list, tuple)):
            left += each
    return total


class LruCache(Generic[K, V]):
    """Cache values by key, up to a total weight; values that were not used recently are dropped.

    Args:
        max_weight: the limit on the total weight.
        weigh: returns the weight of a key and its value; default: 1 for each.

    Threads may share it: at worst one drops a value that another has just added.
    """

    def __init__(self, max_weight: int, weigh: Callable[[K, V], int] = lambda _, __: 1) -> None:
        self._half = max_weight // 2
        self._weigh = weigh
        self._weight = 0
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    @property
    def weight(self) -> int:
        """The total weight of what was added since values were last dropped; never more than the limit."""
        return self._weight

    def get(self, key: K) -> V | None:
        """Return the value, None if there is none; it then counts as recently used."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def get_all(self, keys: Sequence[K]) -> list[V | None]:
        """Return the value of each of these keys, as `get` does."""
        young = self._young.get
        found = [young(key) for key in keys]
        return [self.get(key) for key in keys] if None in found else found

    def unlike(self, keys: Iterable[K]) -> list[K]:
        """Return the keys that were not used recently, or whose value differs from the key."""
        young = self._young
        return [key for key in keys if young.get(key) != key]

    def put(self, key: K, value: V) -> None:
        """Cache a value, unless it weighs more than half of the limit."""
        weight = self._weigh(key, value)
        if weight > self._half:
            return
        if self._weight + weight > self._half:
            self._old, self._young, self._weight = self._young, {}, 0
        self._young[key] = value
        self._weight += weight


class cache_last(Generic[K, V]):  # noqa: N801 - a decorator, as those of functools are
    """Cache a function's last result while its argument is the same object.

    For data that all spans of a process share, such as their resource.
    """

    def __init__(self, function: Callable[[K], V]) -> None:
        self._function = function
        self._last: tuple[K, V] | None = None

    def __call__(self, argument: K) -> V:
        """Return the function's result for this argument."""
        last = self._last
        if last is None or last[0] is not argument:
            last = self._last = (argument, self._function(argument))
        return last[1]
