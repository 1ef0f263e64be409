"""Chat messages out of what came: OpenAI's shape, OpenInference's flat keys, LangChain's JSON."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from telemetry.otlp import Attributes
from telemetry.viewer.observation import Observation, parsed, text

ROLES = {
    "human": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "function": "tool",
    "developer": "system",
}
CLASSES = {
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "HumanMessageChunk": "user",
    "ChatMessage": "assistant",
}
DEEPEST = 4
FLAT = re.compile(r"(\d{1,6})\.message\.(.+)")
FLAT_CALL = re.compile(r"tool_calls\.(\d{1,6})\.tool_call\.(id|function\.name|function\.arguments)")
FLAT_PART = re.compile(r"contents\.(\d{1,6})\.message_content\.text")


@dataclass(frozen=True)
class Call:
    """A model's wish to have a tool run."""

    name: str
    arguments: Any
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: str
    content: str
    name: str = ""
    calls: list[Call] = field(default_factory=list)
    call_id: str = ""


@dataclass(frozen=True)
class Side:
    """What went in or what came out: messages where they are, else any value, parsed if it is JSON."""

    messages: list[Message]
    value: Any = None


def came_in(observation: Observation) -> Side:
    """Return what went into an observation."""
    return _side(observation, "langfuse.observation.input", "llm.input_messages.", observation.input)


def came_out(observation: Observation) -> Side:
    """Return what came out of an observation."""
    return _side(observation, "langfuse.observation.output", "llm.output_messages.", observation.output)


def _side(observation: Observation, first: str, flat: str, otherwise: Any) -> Side:
    messages = (
        _messages(parsed(observation.attributes.get(first)))
        or _flat_messages(observation.attributes, flat)
        or _messages(parsed(otherwise))
    )
    return Side(messages, None if messages else parsed(otherwise))


def _messages(value: Any, depth: int = 0) -> list[Message]:
    """Return the messages that a value is, or holds under a known name; none if any part is not a message."""
    if depth > DEEPEST:
        return []
    if isinstance(value, list):
        found = [_messages(item, depth + 1) for item in value]
        return [message for each in found for message in each] if all(found) else []
    if not isinstance(value, Mapping):
        return []
    if message := _message(value):
        return [message]
    inner = next((value[name] for name in ("messages", "generations", "message") if value.get(name)), None)
    return _messages(inner, depth + 1)


def _message(value: Mapping[str, Any]) -> Message | None:
    inner = value.get("kwargs") or value.get("data")
    fields = inner if isinstance(inner, Mapping) else value
    role = _role(value, fields)
    if role is None or not {"content", "tool_calls"} & fields.keys():
        return None
    calls = fields.get("tool_calls")
    return Message(
        role,
        _content(fields.get("content")),
        _word(fields.get("name")),
        [_call(call) for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else [],
        _word(fields.get("tool_call_id")),
    )


def _role(value: Mapping[str, Any], fields: Mapping[str, Any]) -> str | None:
    path = value.get("id")
    if fields is not value and isinstance(path, list) and path:
        return CLASSES.get(_word(path[-1]))
    said = fields.get("role") or fields.get("type") or value.get("type")
    return ROLES.get(said, said) if isinstance(said, str) else None


def _content(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_content(part) for part in value)
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        return value["text"]
    return "" if value is None else text(value)


def _call(value: Mapping[str, Any]) -> Call:
    function = value["function"] if isinstance(value.get("function"), Mapping) else value
    arguments = function["args"] if "args" in function else function.get("arguments")
    return Call(_word(function.get("name")), parsed(arguments), _word(value.get("id")))


def _word(value: Any) -> str:
    return "" if value is None else text(value)


def _flat_messages(attributes: Attributes, prefix: str) -> list[Message]:
    grouped: dict[int, Attributes] = {}
    for name, value in attributes.items():
        if name.startswith(prefix) and (found := FLAT.fullmatch(name[len(prefix) :])):
            grouped.setdefault(int(found[1]), {})[found[2]] = value
    return [_flat_message(fields) for _, fields in sorted(grouped.items())]


def _flat_message(fields: Attributes) -> Message:
    role = _word(fields.get("role"))
    return Message(
        ROLES.get(role, role),
        "\n".join(_flat_content(fields)),
        _word(fields.get("name")),
        _flat_calls(fields),
        _word(fields.get("tool_call_id")),
    )


def _flat_content(fields: Attributes) -> Iterator[str]:
    if fields.get("content"):
        yield text(fields["content"])
    parts = [(int(found[1]), value) for name, value in fields.items() if (found := FLAT_PART.fullmatch(name))]
    yield from (text(value) for _, value in sorted(parts))


def _flat_calls(fields: Attributes) -> list[Call]:
    grouped: dict[int, Attributes] = {}
    for name, value in fields.items():
        if found := FLAT_CALL.fullmatch(name):
            grouped.setdefault(int(found[1]), {})[found[2]] = value
    return [
        Call(_word(call.get("function.name")), parsed(call.get("function.arguments")), _word(call.get("id")))
        for _, call in sorted(grouped.items())
    ]
