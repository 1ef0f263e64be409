"""The tools that agents share."""

import ast
import operator
import re
from datetime import datetime
from zoneinfo import ZoneInfo

from langchain_core.tools import ToolException, tool
from simpleeval import SimpleEval

ARITHMETIC = re.compile(r"[\d\s.()+*/%^-]{1,200}")
MAX_BASE = 10**9
MAX_EXPONENT = 1_000


def power(base: float, exponent: float) -> float:
    """Return the power; refuse one with too many digits."""
    if abs(base) > MAX_BASE or abs(exponent) > MAX_EXPONENT:
        raise ValueError(f"{base} to the power of {exponent} is too large")
    return base**exponent


OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: power,
    ast.BitXor: power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@tool
def calculator(expression: str) -> str:
    """Calculate an arithmetic expression of numbers, + - * / // % ^ and brackets."""
    if not ARITHMETIC.fullmatch(expression):
        raise ToolException("Write at most 200 characters: numbers, + - * / // % ^ and brackets.")
    try:
        return number(SimpleEval(operators=OPERATORS).eval(expression))
    except Exception as error:
        raise ToolException(f"{expression.strip()} cannot be calculated: {error}.") from error


def number(result: object) -> str:
    """Return the result in digits; raise `TypeError` if it is not a number."""
    if not isinstance(result, int | float):
        raise TypeError("the result is not a number")
    return str(result)


@tool
def current_time(timezone: str = "UTC") -> str:
    """Tell the date and time now in a time zone named as in Europe/Berlin."""
    try:
        zone = ZoneInfo(timezone)
    except (OSError, ValueError, KeyError):
        raise ToolException(f"There is no time zone {timezone!r}; name one such as Europe/Berlin.") from None
    return datetime.now(zone).strftime("%Y-%m-%d %H:%M:%S %Z")
