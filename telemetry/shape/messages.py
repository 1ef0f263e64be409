"""Chat messages in OpenAI's shape, out of LangChain's."""

from collections.abc import Iterator, Mapping
from typing import Any

from telemetry.json_text import dump

Message = dict[str, Any]

_ROLES = {
    "human": "user",
    "HumanMessage": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "SystemMessage": "system",
    "SystemMessageChunk": "system",
    "ToolMessage": "tool",
    "ToolMessageChunk": "tool",
    "FunctionMessage": "function",
    **{role: role for role in ("user", "assistant", "system", "tool", "function", "developer")},
}
# A provider repeats its calls among the parts of the content.
_CALL_PARTS = ("tool_use", "tool_call", "function_call")


def conversation(value: Any) -> list[Message] | None:
    """Return the messages that a list holds, in OpenAI's shape; None where any part of it is no message."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    messages = [message(item) for item in value]
    return [found for found in messages if found] if all(messages) else None


def message(value: Any) -> Message | None:
    """Return one message in OpenAI's shape; None where it is none."""
    if isinstance(value, list):
        pair = len(value) == 2 and all(isinstance(part, str) for part in value)
        return {"role": _ROLES[value[0]], "content": value[1]} if pair and value[0] in _ROLES else None
    fields = fields_of(value)
    role = _role(value, fields)
    if role is None or "content" not in fields:
        return None
    calls = [_call(call) for call in _calls(fields)]
    shaped = {"role": role, "content": _content(fields["content"]), "tool_calls": calls}
    shaped |= {key: fields.get(key) for key in ("tool_call_id", "name")}
    return {key: part for key, part in shaped.items() if part or key in ("role", "content")}


def fields_of(value: Any) -> Mapping[str, Any]:
    """Return the fields of a message, however LangChain has wrapped them."""
    if not isinstance(value, Mapping):
        return {}
    inner = value.get("kwargs") or value.get("data")
    return inner if isinstance(inner, Mapping) else value


def _role(value: Any, fields: Mapping[str, Any]) -> str | None:
    path = value.get("id") if isinstance(value, Mapping) and "kwargs" in value else None
    said = path[-1] if isinstance(path, list) and path else fields.get("role") or fields.get("type")
    return _ROLES.get(said) if isinstance(said, str) else None


def _content(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [part for part in value if not (isinstance(part, Mapping) and part.get("type") in _CALL_PARTS)]


def _calls(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in ("tool_calls", "invalid_tool_calls"):
        calls = fields.get(key)
        yield from (call for call in calls if isinstance(call, Mapping)) if isinstance(calls, list) else ()


def _call(call: Mapping[str, Any]) -> Message:
    function = call.get("function")
    said = function if isinstance(function, Mapping) else call
    arguments = said.get("args", said.get("arguments"))
    function = {"name": said.get("name"), "arguments": dump({} if arguments is None else arguments)}
    return {"id": call.get("id"), "type": "function", "function": function}
