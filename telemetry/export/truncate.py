"""Truncate values to a budget: JSON stays JSON, beginning and end remain, and a note says what is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from telemetry.export.otlp import Attributes, Event, Span
from telemetry.json_text import dump, parse, written

# With less than this, keeping a beginning and an end is not useful.
_MIN_ROOM = 80
_MAX_NAME = 300
_MAX_MESSAGE = 2_000
_MAX_EVENT_VALUE = 8_000
SHORTENED = "telemetry.shortened_bytes"


def build_truncate_stage(value_bytes: int, span_bytes: int) -> Callable[[Span], Span]:
    """Return the stage that limits each value, and all values of a span together, to these bytes; 0 means no limit."""
    small = value_bytes or _MAX_EVENT_VALUE

    def truncate(span: Span) -> Span:
        is_short = not span.events and len(span.name) <= _MAX_NAME and len(span.message) * 6 <= _MAX_MESSAGE
        # A character takes at most six bytes in JSON.
        if is_short and sum(map(_length, span.attributes.values())) * 6 < small:
            return span
        return span.but(
            name=span.name[:_MAX_NAME],
            message=fit_text(span.message, _MAX_MESSAGE),
            attributes=_fit_attributes(span.attributes, value_bytes, span_bytes),
            events=[_fit_event(event) for event in span.events] if value_bytes else span.events,
        )

    return truncate


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
    room = budget - _MIN_ROOM
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
    kept = {key: fit(part, shares[key] - size(str(key)) - 2) for key, part in value.items() if shares[key] > _MIN_ROOM}
    kept |= {key: value[key] for key in value if shares[key] == sizes[key]}
    ordered = {key: kept[key] for key in value if key in kept}
    left_out = len(value) - len(ordered)
    return {**ordered, "…": _left_out(left_out, "fields")} if left_out else ordered


def _shares(sizes: Mapping[Any, int], budget: int) -> dict[Any, int]:
    """Return the share of each value: small values stay complete, large ones share the rest."""
    shares, rest = {}, budget
    for at, (key, needed) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[key] = min(needed, max(rest // (len(sizes) - at), 0))
        rest -= shares[key] + 1
    return shares


def _fit_list(items: Sequence[Any], budget: int) -> list[Any]:
    if len(items) == 1:
        return [fit(items[0], budget - 2)]
    first = fit(items[0], budget // 4)
    rest = budget - size(first) - _MIN_ROOM - 4
    kept: list[Any] = []
    for item in reversed(items[1:]):
        short = fit(item, max(rest // 2, _MIN_ROOM)) if not kept else item
        if (needed := size(short) + 1) > rest:
            break
        kept.append(short)
        rest -= needed
    left_out = len(items) - 1 - len(kept)
    between = [_stand_in(items[1], left_out)] if left_out else []
    return [first, *between, *reversed(kept)]


def _stand_in(item: Any, count: int) -> Any:
    """Return the note for omitted items; for messages a message, so that backends still show a chat."""
    if isinstance(item, Mapping) and "role" in item:
        note = _left_out(count, "messages")
        if "parts" in item:
            return {"role": "system", "parts": [{"type": "text", "content": note}]}
        return {"role": "system", "content": note}
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
    before = attributes.get(SHORTENED, 0)  # what the recorder has already left out
    cut = sum(sizes.values()) - sum(_wire_size(value) for value in short.values())
    return {**short, SHORTENED: cut + (before if isinstance(before, int) else 0)}


def _fit_event(event: Event) -> Event:
    attributes = {
        key: _fit_value(value, _MAX_EVENT_VALUE) if _wire_size(value) > _MAX_EVENT_VALUE else value
        for key, value in event.attributes.items()
    }
    return replace(event, name=event.name[:_MAX_NAME], attributes=attributes)


def _fit_value(value: Any, budget: int) -> Any:
    parsed = parse(value)
    if parsed is None:
        if not isinstance(value, str):
            return fit(value, budget)
        return _ends(value, budget - _MIN_ROOM) if budget > _MIN_ROOM else _left_out(len(value), "characters")
    return dump(fit(parsed, budget))


def _wire_size(value: Any) -> int:
    if not isinstance(value, str):
        return size(value) if isinstance(value, (list, dict, bytes)) else 8
    return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
