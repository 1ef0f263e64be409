"""What a model's tokens cost where the program does not say: by a price list of one's own, else by genai-prices."""

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

# The kinds of tokens that each column of a price list prices. Tokens that a model thinks with are output.
KINDS = {
    "input": ("input", "input_audio_tokens"),
    "cache_read": ("input_cached_tokens", "input_cache_read", "cache_read_input_tokens"),
    "cache_write": ("input_cache_creation", "cache_creation_input_tokens"),
    "output": ("output", "output_reasoning_tokens", "output_reasoning", "output_audio_tokens"),
}
COLUMNS = ("model", "from", *KINDS)
# Who sells a model whose provider was not sent: whoever the name fits, or the first of these that has it.
PROVIDERS = (None, "openai", "anthropic", "aws", "google")
NAME_LENGTH = 200
EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Cost:
    """US dollars by kind of tokens with their total, and whose prices these are; empty if no price is known."""

    details: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class OwnPrice:
    """Dollars for a million tokens by column, from a day on."""

    since: date
    prices: Mapping[str, float]


@dataclass(frozen=True)
class Prices:
    """The prices of models: a list of one's own, by model and with the latest day first, then those of genai-prices."""

    own: Mapping[str, Sequence[OwnPrice]] = field(default_factory=dict)

    def cost_of(self, model: str, provider: str | None, usage: Mapping[str, int], time_ns: int) -> Cost:
        """Return what these tokens cost at this time in Unix nanoseconds."""
        tokens = {column: sum(usage.get(kind, 0) for kind in kinds) for column, kinds in KINDS.items()}
        if not any(tokens.values()) or len(model) > NAME_LENGTH:
            return Cost()
        at = EPOCH + timedelta(microseconds=time_ns // 1000)
        for own in self.own.get(model.lower(), ()):
            if own.since <= at.date():
                return _own_cost(own, tokens)
        return _list_cost(model, provider, tokens, at)


def read_prices(path: Path) -> Prices:
    """Return the prices of a CSV file with the columns of `COLUMNS`; raise `ValueError` with the line that is wrong."""
    own: dict[str, list[OwnPrice]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        if set(rows.fieldnames or ()) != set(COLUMNS):
            raise ValueError(f"line 1: the columns must be {','.join(COLUMNS)}")
        try:
            for row in rows:
                own.setdefault((row.get("model") or "").strip().lower(), []).append(_own_price(row))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"line {max(rows.reader.line_num, 1)}: {error}") from error
    return Prices({model: sorted(prices, key=lambda price: price.since, reverse=True) for model, prices in own.items()})


def _own_price(row: Mapping[str | None, str | None]) -> OwnPrice:
    if None in row or None in row.values():
        raise ValueError(f"it must have as many values as there are columns: {','.join(COLUMNS)}")
    values = {str(column): (value or "").strip() for column, value in row.items()}
    if not values["model"]:
        raise ValueError("it has no model")
    try:
        since = date.fromisoformat(values["from"]) if values["from"] else date.min
    except ValueError:
        raise ValueError(f"from must be a day as 2026-01-31, or empty, not {values['from']!r:.50}") from None
    prices = {column: _dollars(column, values[column]) for column in ("input", "output")}
    # Without a price of its own, what goes through a cache costs what other input does.
    caches = ("cache_read", "cache_write")
    prices |= {column: _dollars(column, values[column] or values["input"]) for column in caches}
    return OwnPrice(since, prices)


def _dollars(column: str, value: str) -> float:
    try:
        dollars = float(value or 0)
    except ValueError:
        dollars = math.nan
    if not 0 <= dollars < math.inf:
        raise ValueError(f"{column} must be dollars for a million tokens, not {value!r:.50}")
    return dollars


def _own_cost(own: OwnPrice, tokens: Mapping[str, int]) -> Cost:
    costs = {column: own.prices[column] * count / 1e6 for column, count in tokens.items()}
    source = "VIEWER_PRICES" if own.since == date.min else f"VIEWER_PRICES, from {own.since} on"
    return Cost(_details(sum(costs.values()) - costs["output"], costs["output"]), source)


def _list_cost(model: str, provider: str | None, tokens: Mapping[str, int], at: datetime) -> Cost:
    # Imported when it is needed: it takes half a second and 75 MB.
    from genai_prices import Usage, __version__, calc_price

    if not (listed := _listed(model.lower(), provider)):
        return Cost()
    name, seller = listed
    usage = Usage(
        input_tokens=tokens["input"] + tokens["cache_read"] + tokens["cache_write"],
        cache_read_tokens=tokens["cache_read"],
        cache_write_tokens=tokens["cache_write"],
        output_tokens=tokens["output"],
    )
    try:
        found = calc_price(usage, name, provider_id=seller, genai_request_timestamp=at)
    except (LookupError, ValueError):
        return Cost()  # there is no price for that day or for one of the kinds
    details = _details(float(found.input_price), float(found.output_price))
    return Cost(details, f"genai-prices {__version__}, prices of {at:%Y-%m-%d}")


@lru_cache(4_096)
def _listed(model: str, provider: str | None) -> tuple[str, str | None] | None:
    """Return the name and the provider by which genai-prices knows a model, None if it does not."""
    from genai_prices import Usage, calc_price

    vendor, _, name = model.rpartition("/")
    sellers = (provider,) if provider else dict.fromkeys((vendor or None, *PROVIDERS))
    for each in dict.fromkeys((model, name)):
        for seller in sellers:
            with suppress(LookupError, ValueError):
                calc_price(Usage(input_tokens=1), each, provider_id=seller)
                return each, seller
    return None


def _details(input_cost: float, output_cost: float) -> dict[str, float]:
    return {"input": input_cost, "output": output_cost, "total": input_cost + output_cost}
