"""What a model's tokens cost where the program does not say: the list prices in `prices.csv`."""

import csv
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("prices.csv")
# The kinds of tokens that each column of the table prices. Tokens that a model thinks with are output.
KINDS = {
    "input": ("input",),
    "cache_read": ("input_cached_tokens", "input_cache_read"),
    "cache_write": ("input_cache_creation",),
    "output": ("output", "output_reasoning_tokens", "output_reasoning"),
    "total": ("total",),
}
# A model's name as routers, Bedrock and Vertex AI write it: `openai/NAME`, `eu.anthropic.NAME-v1:0`, `NAME@VERSION`.
NAME = re.compile(
    r"(?:(?:openai|anthropic|google|googleai)/|(?:(?:eu|us|apac|au|jp|global)\.)?anthropic\.)?(.+?)(?:-v\d(?::0)?)?"
)


def costs_of(model: str, usage: Mapping[str, int]) -> dict[str, float]:
    """Return the US dollars for a call by kind of tokens, with their total; nothing if no price is known."""
    prices = _prices().get(_plain(model), {})
    costs = {kind: prices[kind] * count / 1e6 for kind, count in usage.items() if kind in prices}
    return costs | {"total": costs.get("total", sum(costs.values()))} if costs else {}


@cache
def _prices() -> dict[str, dict[str, float]]:
    """Return the dollars for a million tokens of each kind, by the names of the models and their versions."""
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {
        name: {kind: float(row[column]) for column, kinds in KINDS.items() if row[column] for kind in kinds}
        for row in rows
        for name in (row["model"], *(f"{row['model']}-{version}" for version in row["versions"].split()))
    }


def _plain(model: str) -> str:
    name = model.lower().replace("@", "-").replace("gpt-35-", "gpt-3.5-")
    found = NAME.fullmatch(name)
    return found[1] if found else name
