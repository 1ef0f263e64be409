"""A node, an agent, a graph: not the whole history at every level, but what is new."""

from collections.abc import Mapping
from typing import Any

from telemetry.json_text import dump, parse
from telemetry.otlp import Attributes, Span
from telemetry.shape.messages import Message, conversation, fields_of

# A command's and a task's fields that hold nothing new: no value, or the whole state once more.
_EMPTY_OF_COMMAND = {"graph", "update", "resume", "goto"}
_DEEPEST = 3


def shaped(span: Span) -> Attributes:
    """Return what is to be shown of a node: its last message, what it adds, how many messages there are."""
    given, came = span.attributes.get("input.value"), span.attributes.get("output.value")
    before, after = parse(given), parse(came)
    return {
        "input": _text(given, before, without_history(before)),
        "output": _text(came, after, _news(before, after)),
        "messages": _count(before),
    }


def without_history(value: Any, depth: int = 0) -> Any:
    """Return a state, or what holds one, with only the last message of each conversation in it."""
    if depth > _DEEPEST:
        return value
    if messages := conversation(value):
        return messages[-1:]
    if isinstance(value, Mapping):
        return {key: without_history(part, depth + 1) for key, part in value.items() if not _says_nothing(key, part)}
    if isinstance(value, list):
        return [without_history(part, depth + 1) for part in value]
    return value


def _news(before: Any, after: Any) -> Any:
    messages = conversation(_messages(after))
    if messages is None or not isinstance(after, Mapping):
        return without_history(after)
    new = _new(messages, _ids(_messages(before)), _raw(_messages(after)))
    rest = {key: part for key, part in after.items() if key != "messages"}
    return {"messages": new, **without_history(rest)} if rest else new


def _new(messages: list[Message], known: set[str], raw: list[Any]) -> list[Message]:
    """What follows the last message that was there before or that a person said; the last one where that is all."""
    ids = [fields_of(each).get("id") for each in raw]
    seen = [at for at, each in enumerate(messages) if each["role"] == "user" or ids[at] in known]
    return messages[seen[-1] + 1 if seen else 0 :] or messages[-1:]


def _messages(value: Any) -> Any:
    return value.get("messages") if isinstance(value, Mapping) else None


def _raw(value: Any) -> list[Any]:
    nested = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
    return value[0] if nested else value


def _ids(value: Any) -> set[str]:
    found = _raw(value) if isinstance(value, list) else []
    return {said for each in found if isinstance(said := fields_of(each).get("id"), str)}


def _count(before: Any) -> int | None:
    messages = conversation(_messages(before))
    return len(messages) if messages else None


def _says_nothing(key: str, value: Any) -> bool:
    return key in _EMPTY_OF_COMMAND and value in (None, [])


def _text(text: Any, parsed: Any, shown: Any) -> str | None:
    if text is None:
        return None
    if isinstance(shown, Mapping) and shown.keys() == {"messages"}:
        shown = shown["messages"]
    return dump(text if parsed is None else shown)
