"""The calculator is exact and bounded; the clock knows the world."""

import re

import pytest
from langchain_core.tools import ToolException

from app.agents.tools import calculator, current_time


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("12*34", "408"),
        ("(1 + 2) ** 3", "27"),
        ("2^10", "1024"),
        ("7 // 2", "3"),
        ("7 % 4", "3"),
        ("-1/4", "-0.25"),
    ],
)
def test_it_calculates(expression: str, result: str) -> None:
    """Ordinary arithmetic comes out right, with ^ as the power."""
    assert calculator.invoke({"expression": expression}) == result


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("1/0", "division by zero"),
        ("9**9**9", "too large"),
        ("10**999*" * 20 + "1", "cannot be calculated"),
        ("(-8)**0.5", "not a number"),
        ("1 +", "cannot be calculated"),
        ("()", "cannot be calculated"),
        ("1" * 201, "at most 200"),
        ("-" * 199 + "1", None),
        ("(" * 99 + "1" + ")" * 99, None),
        ("__import__('os').getcwd()", "at most 200"),
        ("", "at most 200"),
    ],
)
def test_what_it_cannot_calculate_it_refuses_in_words(expression: str, complaint: str | None) -> None:
    """Nonsense, the gigantic and the malicious end at once in a tool's error, if not in a number."""
    if complaint is None:
        assert re.fullmatch(r"-?\d+", calculator.invoke({"expression": expression}))
    else:
        with pytest.raises(ToolException, match=complaint):
            calculator.invoke({"expression": expression})


def test_it_tells_the_time_where_asked() -> None:
    """The time is UTC's without a zone and the zone's with one."""
    assert current_time.invoke({}).endswith(" UTC")
    assert re.search(r" CES?T$", current_time.invoke({"timezone": "Europe/Berlin"}))


@pytest.mark.parametrize("zone", ["Atlantis", "", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "x" * 999])
def test_a_zone_that_is_none_is_refused_in_words(zone: str) -> None:
    """Whatever is not a time zone ends in a tool's error that gives an example."""
    with pytest.raises(ToolException, match="Europe/Berlin"):
        current_time.invoke({"timezone": zone})
