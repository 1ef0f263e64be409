"""What an answer took, in words."""

import pytest

from ui.ending import dollars


@pytest.mark.parametrize(
    ("cost", "words"),
    [(0, "0.00"), (0.00002, "0.000020"), (0.00028, "0.00028"), (0.0123, "0.012"), (0.5, "0.50"), (1234.5, "1234.50")],
)
def test_a_cost_is_a_plain_number(cost: float, words: str) -> None:
    """Neither a small nor a large one has an exponent."""
    assert dollars(cost) == words
