"""Chat messages in OpenAI's shape, out of LangChain's."""

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


def listed(value: Any) -> list[Any] | None:
    """Return the raw messages where a value is a list of them, by the look of the first and the last."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    return value if message(value[0]) and message(value[-1]) else None


def conversation(value: Any) -> list[Message] | None:
    """Return the messages that a list holds, in OpenAI's shape; None where any part of it is no message."""
    shaped = [message(each) for each in listed(value) or ()]
    return [each for each in shaped if each] if shaped and all(shaped) else None


def message(value: Any) -> Message | None:
    """Return one message in OpenAI's shape; None where it is none."""
    if isinstance(value, list):
        pair = len(value) == 2 and all(isinstance(part, str) for part in value)
        return {"role": _ROLES[value[0]], "content": value[1]} if pair and value[0] in _ROLES else None
    fields = fields_of(value)
    role = _role(value, fields) if fields else None
    if role is None or "content" not in fields:
        return None
    shaped: Message = {"role": role, "content": _content(fields["content"])}
    if calls := [*_calls(fields, "tool_calls"), *_calls(fields, "invalid_tool_calls")]:
        shaped["tool_calls"] = calls
    for key in ("tool_call_id", "name"):
        if said := fields.get(key):
            shaped[key] = said
    return shaped


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a message, however LangChain has wrapped them."""
    if not isinstance(value, dict):
        return {}
    inner = value.get("kwargs") or value.get("data")
    return inner if isinstance(inner, dict) else value


def role_of(value: Any) -> str | None:
    """Return a message's role in OpenAI's words; None where it is none."""
    return _role(value, fields_of(value)) if isinstance(value, dict) else None


def _role(value: Any, fields: dict[str, Any]) -> str | None:
    path = value.get("id") if "kwargs" in value else None
    said = path[-1] if isinstance(path, list) and path else fields.get("role") or fields.get("type")
    return _ROLES.get(said) if isinstance(said, str) else None


def _content(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [part for part in value if not (isinstance(part, dict) and part.get("type") in _CALL_PARTS)]


def _calls(fields: dict[str, Any], key: str) -> list[Message]:
    calls = fields.get(key)
    return [_call(call) for call in calls if isinstance(call, dict)] if calls and isinstance(calls, list) else []


def _call(call: dict[str, Any]) -> Message:
    function = call.get("function")
    said = function if isinstance(function, dict) else call
    arguments = said.get("args", said.get("arguments"))
    function = {"name": said.get("name"), "arguments": dump({} if arguments is None else arguments)}
    return {"id": call.get("id"), "type": "function", "function": function}
