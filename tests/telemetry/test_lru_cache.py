"""A cache weighs what it keeps alive."""

import gc
import tracemalloc
from collections.abc import Callable
from itertools import count

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from telemetry.export.redact.redactor import Redactor
from telemetry.instrumentation.langchain.serialize import Serializer
from telemetry.lru_cache import LruCache, size_of
from telemetry.messages_json import MessagesJson

MIB = 1024 * 1024
MESSAGES: dict[str, Callable[[int], BaseMessage]] = {
    "short": lambda number: HumanMessage(f"Hi {number}", id=f"m-{number}"),
    "with much that its provider says": lambda number: AIMessage(
        f"Hello {number}", id=f"m-{number}", response_metadata={"logprobs": [str(number)] * 200, "id": "x" * 3000}
    ),
    "long": lambda number: HumanMessage(f"{number} " + "long " * 1000, id=f"m-{number}"),
    "with wide characters": lambda number: HumanMessage(f"{number} \N{ROBOT FACE}" + "x" * 500, id=f"m-{number}"),
    "with calls": lambda number: AIMessage(
        "", id=f"m-{number}", tool_calls=[{"name": "look", "args": {"a": [number] * 9}, "id": f"c-{number}"}]
    ),
    "of parts": lambda number: HumanMessage([{"type": "text", "text": f"part {n} of {number}"} for n in range(5)]),
}


def kept(work: Callable[[int], object]) -> float:
    """How many MiB are kept after so much of it that more would not change anything."""
    numbers = count()

    def until_full() -> int:
        for _ in range(3000):
            work(next(numbers))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before, sizes = tracemalloc.get_traced_memory()[0], [until_full()]
        while len(sizes) < 2 or sizes[-1] > 1.05 * max(sizes[:-1]):
            sizes.append(until_full())
        return (max(sizes) - before) / MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", MESSAGES)
def test_serialised_messages_are_bounded(kind: str) -> None:
    """Of whatever kind they are: 8 MiB by their ids, and 2 MiB by the objects."""
    serializer = Serializer()

    assert kept(lambda number: serializer.message(MESSAGES[kind](number))) < 10.5


@pytest.mark.parametrize("text", ["{} short", "{} " + "long " * 300, "{} \N{ROBOT FACE}" + "x" * 300])
def test_redacted_parts_are_bounded(text: str) -> None:
    """32 MiB of text, whether it is ASCII or takes four bytes a character."""
    redactor = Redactor()

    def redact(number: int) -> None:
        redactor.cache_clean(MessagesJson([text.format(number * 10 + n) for n in range(10)]).parts)

    assert kept(redact) < 34


def test_what_is_heavier_than_the_cache_is_not_cached() -> None:
    """It would stay, however large it is."""
    cache: LruCache[str, str] = LruCache(1000, lambda key, value: len(key) + len(value))
    cache.put("a", "small")
    cache.put("b", "x" * 501)

    assert (cache.get("a"), cache.get("b")) == ("small", None)


def test_a_value_is_as_large_as_its_parts() -> None:
    """Lists and dictionaries count with what is in them."""
    assert size_of({"a": ["x" * 1000] * 3}) > 3000
