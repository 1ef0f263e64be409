"""A node, an agent, a graph: not the whole history at every level, but what is new."""

from typing import Any

from telemetry.json_text import dump, parse
from telemetry.otlp import Attributes, Span
from telemetry.said import Said
from telemetry.shape.messages import fields_of, listed, message, role_of

# A command's and a task's fields that hold nothing new: no value, or the whole state once more.
_EMPTY_OF_COMMAND = {"graph", "update", "resume", "goto"}
_DEEPEST = 3
# Who records a run knows how many messages it began with, of which the last one is shown.
COUNT = "langfuse.observation.metadata.messages"


def shaped(span: Span) -> Attributes:
    """Return what is to be shown of a node: its last message, what it adds, how many messages there are."""
    given, came = span.attributes.get("input.value"), span.attributes.get("output.value")
    before = None if isinstance(given, Said) else parse(given)
    return {
        "input": given.messages if isinstance(given, Said) else _text(given, before, without_history(before)),
        "output": came.messages if isinstance(came, Said) else _after(before, came),
        "messages": span.attributes.get(COUNT) or _count(before),
    }


def _after(before: Any, came: Any) -> str | None:
    after = parse(came)
    return _text(came, after, _news(before, after))


def without_history(value: Any, depth: int = 0) -> Any:
    """Return a state, or what holds one, with only the last message of each conversation in it."""
    if depth > _DEEPEST:
        return value
    if isinstance(value, dict):
        return {key: without_history(part, depth + 1) for key, part in value.items() if not _says_nothing(key, part)}
    if isinstance(value, list):
        messages = listed(value)
        return [message(messages[-1])] if messages else [without_history(part, depth + 1) for part in value]
    return value


def _news(before: Any, after: Any) -> Any:
    messages = listed(after.get("messages")) if isinstance(after, dict) else None
    if messages is None:
        return without_history(after)
    new = [shown for each in _new(messages, _ids(before)) if (shown := message(each))]
    return {**without_history({key: part for key, part in after.items() if key != "messages"}), "messages": new}


def _new(messages: list[Any], known: set[str]) -> list[Any]:
    """What follows the last message that was there before or that a person said; the last one where that is all."""
    for at in range(len(messages) - 1, -1, -1):
        if fields_of(messages[at]).get("id") in known or role_of(messages[at]) == "user":
            return messages[at + 1 :] or messages[-1:]
    return messages


def _ids(before: Any) -> set[str]:
    messages = listed(before.get("messages")) if isinstance(before, dict) else None
    return {said for each in messages or () if isinstance(said := fields_of(each).get("id"), str)}


def _count(before: Any) -> int | None:
    messages = listed(before.get("messages")) if isinstance(before, dict) else None
    return len(messages) if messages else None


def _says_nothing(key: str, value: Any) -> bool:
    return key in _EMPTY_OF_COMMAND and (value is None or value == [])


def _text(text: Any, parsed: Any, shown: Any) -> str | None:
    if text is None:
        return None
    if isinstance(shown, dict) and shown.keys() == {"messages"}:
        shown = shown["messages"]
    return dump(text if parsed is None else shown)
