"""What tokens cost, where somebody has said so."""

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple, Self

INPUT, OUTPUT = "input_tokens", "output_tokens"
MILLION = 1_000_000


class Price(NamedTuple):
    """What a million tokens cost, in dollars."""

    input: float
    output: float

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the price written as input/output."""
        given, _, back = text.partition("/")
        return cls(float(given), float(back))


def prices(text: str) -> dict[str, Price]:
    """Return the prices written as model=input/output, by comma; raises ValueError with the one that is not."""
    found: dict[str, Price] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, price = part.rpartition("=")
        try:
            found[name.strip()] = Price.read(price)
        except ValueError:
            raise ValueError(
                f"{part}: write model=input/output in dollars a million tokens, such as m=1.25/10"
            ) from None
        if not name or not all(isfinite(price) and price >= 0 for price in found[name.strip()]):
            raise ValueError(f"{part}: name the model and give prices of 0 or more")
    return found


def cost(counts: Mapping[str, int], price: Price | None) -> float | None:
    """Return what the tokens cost in dollars; None without a price, or where no model told its tokens."""
    if price is None or INPUT not in counts:
        return None
    return (counts[INPUT] * price.input + counts[OUTPUT] * price.output) / MILLION
