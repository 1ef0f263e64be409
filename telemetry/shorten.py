"""Values within their budgets: JSON stays JSON, the beginning and the end remain, what was cut is said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from telemetry.json_text import dump, parse, written
from telemetry.otlp import Attributes, Event, Span

# Below this there is no beginning and end worth keeping.
_LEAST = 80
_NAME = 300
_MESSAGE = 2_000
_EVENT_VALUE = 8_000
SHORTENED = "telemetry.shortened_bytes"


def shorten(value_bytes: int, span_bytes: int) -> Callable[[Span], Span]:
    """Return the stage that keeps each value, and all of a span's together, within so many bytes; 0 is no limit."""

    def stage(span: Span) -> Span:
        if _is_small(span, value_bytes or _EVENT_VALUE):
            return span
        attributes = _fit_attributes(span.attributes, value_bytes, span_bytes)
        return span.but(
            name=span.name[:_NAME],
            message=fit_text(span.message, _MESSAGE),
            attributes=attributes,
            events=[_fit_event(event) for event in span.events] if value_bytes else span.events,
        )

    return stage


def _is_small(span: Span, room: int) -> bool:
    """Whether nothing in a span can be too long: a sign takes six bytes at most."""
    if span.events or len(span.name) > _NAME or len(span.message) * 6 > _MESSAGE:
        return False
    return sum(map(_length, span.attributes.values())) * 6 < room


def _length(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_length, (*value, *value.values()))) + 1
    return sum(map(_length, value)) + 1 if isinstance(value, (list, tuple)) else 8


def fit(value: Any, budget: int) -> Any:
    """Return a value whose JSON takes no more bytes than the budget, with its beginning and its end."""
    if size(value) <= budget:
        return value
    match value:
        case str():
            return fit_text(value, budget)
        case Mapping():
            return _fit_mapping(value, budget)
        case list() | tuple() if value:
            return _fit_list(value, budget)
        case _:
            return _left_out(size(value), "bytes")


def fit_text(text: str, budget: int) -> str:
    """Return text whose JSON takes no more bytes than the budget."""
    if size(text) <= budget:
        return text
    room = budget - _LEAST
    while room > 0:
        short = _ends(text, room)
        if size(short) <= budget:
            return short
        room //= 2
    return _left_out(len(text), "characters")


def size(value: Any) -> int:
    """Return how many bytes a value takes in JSON."""
    return len(written(value))


def _ends(text: str, room: int) -> str:
    encoded = text.encode("utf-8", "replace")
    head = encoded[: room * 2 // 3].decode("utf-8", "ignore")
    tail = encoded[len(encoded) - room // 3 :].decode("utf-8", "ignore")
    return f"{head}{_left_out(len(text) - len(head) - len(tail), 'characters')}{tail}"


def _left_out(count: int, what: str) -> str:
    return f"[… {count} {what} left out …]"


def _fit_mapping(value: Mapping[Any, Any], budget: int) -> dict[Any, Any]:
    sizes = {key: size(str(key)) + 2 + size(part) for key, part in value.items()}
    shares = _shares(sizes, budget - 2)
    kept = {key: fit(part, shares[key] - size(str(key)) - 2) for key, part in value.items() if shares[key] > _LEAST}
    kept |= {key: value[key] for key in value if shares[key] == sizes[key]}
    ordered = {key: kept[key] for key in value if key in kept}
    left_out = len(value) - len(ordered)
    return {**ordered, "…": _left_out(left_out, "fields")} if left_out else ordered


def _shares(sizes: Mapping[Any, int], budget: int) -> dict[Any, int]:
    """What is small stays whole; what is large shares the rest."""
    shares, rest = {}, budget
    for at, (key, needed) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[key] = min(needed, max(rest // (len(sizes) - at), 0))
        rest -= shares[key] + 1
    return shares


def _fit_list(items: Sequence[Any], budget: int) -> list[Any]:
    if len(items) == 1:
        return [fit(items[0], budget - 2)]
    marker = _LEAST
    first = fit(items[0], budget // 4)
    rest = budget - size(first) - marker - 4
    kept: list[Any] = []
    for item in reversed(items[1:]):
        short = fit(item, max(rest // 2, _LEAST)) if not kept else item
        if (needed := size(short) + 1) > rest:
            break
        kept.append(short)
        rest -= needed
    left_out = len(items) - 1 - len(kept)
    between = [_stand_in(items[1], left_out)] if left_out else []
    return [first, *between, *reversed(kept)]


def _stand_in(item: Any, count: int) -> Any:
    """A message stands for messages: a chat with anything else in it is drawn as no chat."""
    if isinstance(item, Mapping) and "role" in item:
        return {"role": "system", "content": _left_out(count, "messages")}
    return _left_out(count, "items")


def _fit_attributes(attributes: Attributes, value_bytes: int, span_bytes: int) -> Attributes:
    sizes = {key: _wire_size(value) for key, value in attributes.items()}
    budgets = {key: min(needed, value_bytes or needed) for key, needed in sizes.items()}
    if span_bytes and sum(budgets.values()) > span_bytes:
        budgets = _shares(budgets, span_bytes)
    if budgets == sizes:
        return attributes
    short = {
        key: value if budgets[key] >= sizes[key] else _fit_value(value, budgets[key])
        for key, value in attributes.items()
    }
    before = attributes.get(SHORTENED, 0)  # what whoever recorded it had left out already
    cut = sum(sizes.values()) - sum(_wire_size(value) for value in short.values())
    return {**short, SHORTENED: cut + (before if isinstance(before, int) else 0)}


def _fit_event(event: Event) -> Event:
    attributes = {
        key: _fit_value(value, _EVENT_VALUE) if _wire_size(value) > _EVENT_VALUE else value
        for key, value in event.attributes.items()
    }
    return replace(event, name=event.name[:_NAME], attributes=attributes)


def _fit_value(value: Any, budget: int) -> Any:
    parsed = parse(value)
    if parsed is None:
        return _fit_plain(value, budget) if isinstance(value, str) else fit(value, budget)
    return dump(fit(parsed, budget))


def _fit_plain(text: str, budget: int) -> str:
    return _ends(text, budget - _LEAST) if budget > _LEAST else _left_out(len(text), "characters")


def _wire_size(value: Any) -> int:
    if not isinstance(value, str):
        return size(value) if isinstance(value, (list, dict, bytes)) else 8
    return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
