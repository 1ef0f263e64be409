"""The tokens that a turn's model calls used, and what they cost."""

from collections import Counter
from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

INPUT, OUTPUT = "input_tokens", "output_tokens"
MILLION = 1_000_000


class Price(NamedTuple):
    """The price of a million tokens, in dollars."""

    input: float
    output: float


def parse_prices(text: str) -> dict[str, Price]:
    """Return the prices from a comma-separated list of model=input/output; raise `ValueError` for an invalid one."""
    prices: dict[str, Price] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, price = part.rpartition("=")
        try:
            input_price, _, output_price = price.partition("/")
            parsed = Price(float(input_price), float(output_price))
        except ValueError:
            raise ValueError(
                f"{part}: write model=input/output in dollars per million tokens, such as m=1.25/10"
            ) from None
        if not name or not all(isfinite(dollars) and dollars >= 0 for dollars in parsed):
            raise ValueError(f"{part}: name the model and give prices of 0 or more")
        prices[name.strip()] = parsed
    return prices


def cost(counts: Mapping[str, int], price: Price | None) -> float | None:
    """Return the cost of the tokens in dollars; None without a price, or if no model has reported its tokens."""
    if price is None or INPUT not in counts:
        return None
    return (counts[INPUT] * price.input + counts[OUTPUT] * price.output) / MILLION


class Usage(BaseCallbackHandler):
    """Adds up the tokens that the models of a turn report, including those of sub-agents."""

    run_inline = True

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Count the tokens of one call, if the model reports them."""
        for generation in response.generations[0][:1] if response.generations else ():
            message = generation.message if isinstance(generation, ChatGeneration) else None
            if isinstance(message, AIMessage) and (usage := message.usage_metadata):
                self._counts[INPUT] += usage[INPUT]
                self._counts[OUTPUT] += usage[OUTPUT]
