"""What a value costs when it is read and when it is written, for each of its bytes, compared with prose."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from pydantic import BaseModel

import telemetry
from telemetry.export.stages import build_stages, prepare_all
from telemetry.plain_data import safe_json
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.differential.texts import UNUSUAL, USUAL, prose

# A measurement, if one of ratios within one run: a loaded machine may exceed them.
pytestmark = pytest.mark.chaos


class Row(BaseModel):
    """A row of a program's own."""

    number: int
    name: str
    tags: list[str]


@dataclass
class Item:
    """The same as a dataclass."""

    number: int
    name: str
    tags: list[str]


PLAIN = [{"id": at, "name": f"row {at}", "price": at * 1.5, "tags": ["a", "b"], "none": None} for at in range(1_000)]
BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
# How many times the cost of prose: to write JSON, to read it again and to look for messages in it costs more than to
# search text. What is unbounded, or reads a value twice as deep as it should, costs a multiple of this.
VALUES = {
    "rows": (PLAIN, 120),
    "nested": ({"deep": [{"in": {"it": at}} for at in range(3_000)]}, 200),
    "numbers": ([at / 7 for at in range(12_000)], 40),
    "models": ([Row(number=at, name=f"row {at}", tags=["a", "b"]) for at in range(2_000)], 200),
    "dataclasses": ([Item(at, f"row {at}", ["a", "b"]) for at in range(2_000)], 200),
    "dates": ([BEGAN + timedelta(seconds=at) for at in range(6_000)], 60),
    "rows with a date": ([{**row, "at": BEGAN} for row in PLAIN], 120),
}
STAGES = build_stages(Settings())
# Another process on this core adds to a measurement, and never takes from it: one undisturbed round is enough.
ROUNDS = 12


def _span(value: str) -> Sequence[ReadableSpan]:
    with recording() as recorded:
        with telemetry.span("measured"):
            trace.get_current_span().set_attribute("input.value", value)
        return recorded.settled()


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _cost(value: Any) -> float:
    """Return the CPU seconds that a value takes in the program's thread and in the writer's, a byte."""
    text = value if isinstance(value, str) else safe_json(value)
    spans = _span(text)
    seconds = _seconds(lambda: safe_json([value])) + _seconds(lambda: prepare_all(spans, STAGES))
    return seconds / len(text.encode("utf-8", "replace"))


def _least_ratio(value: Any, limit: float) -> float:
    """Return how many times the cost of prose it is, at the least in these rounds."""
    least = float("inf")
    for number in range(ROUNDS):
        least = min(least, _cost(value) / _cost(prose(number)))
        if least <= limit:
            break
    return least


@pytest.mark.parametrize("kind", USUAL)
def test_a_text_costs_no_more_than_thrice_what_prose_does(kind: str) -> None:
    """Files, numbers, code, other scripts: whatever a program holds."""
    assert _least_ratio(USUAL[kind], 3) <= 3


@pytest.mark.parametrize("kind", UNUSUAL)
def test_a_crafted_text_costs_little_more(kind: str) -> None:
    """Text that is hardly anything but candidates for secrets, or written in escapes."""
    assert _least_ratio(UNUSUAL[kind], 15) <= 15


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_costs_what_its_json_costs(kind: str) -> None:
    """Rows, models, dates: whatever is in a graph's state."""
    value, limit = VALUES[kind]
    assert _least_ratio(value, limit) <= limit
