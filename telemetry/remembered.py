"""What is remembered as long as it is asked for, within bounds."""

from collections.abc import Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Values by their keys; what was not asked for while as much again came in is forgotten.

    Threads may share it: at worst one forgets what another has just put in.
    """

    def __init__(self, most: int) -> None:
        self._most = most // 2
        self._weight = 0
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K, weight: int = 1) -> V | None:
        """Return the value, None where there is none; it is as good as new then."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value, weight)
        return value

    def unlike(self, keys: Iterable[K]) -> list[K]:
        """Return those of these keys that were not asked for of late, or whose value is another than they are."""
        young = self._young
        return [key for key in keys if young.get(key) != key]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Remember a value of this weight."""
        if self._weight + weight > self._most:
            self._old, self._young, self._weight = self._young, {}, 0
        self._young[key] = value
        self._weight += weight
