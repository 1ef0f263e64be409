"""Convert LangChain's chat messages to OpenAI's format."""

from typing import Any

from telemetry.json_text import dump, parse
from telemetry.messages_json import MessagesJson

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
    "model": "assistant",  # as Google's models call themselves
    **{role: role for role in ("user", "assistant", "system", "tool", "function", "developer")},
}
_CLASSES = {
    "user": "HumanMessage",
    "assistant": "AIMessage",
    "system": "SystemMessage",
    "developer": "SystemMessage",
    "tool": "ToolMessage",
    "function": "FunctionMessage",
}
_BESIDE_CONTENT = ("reasoning_content", "refusal", "function_call")
# A provider repeats its calls among the parts of the content.
CALL_PARTS = ("tool_use", "tool_call", "function_call")


def listed(value: Any) -> list[Any] | None:
    """Return the raw messages if a value is a list of them, judging by the first and the last."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) and not message(value[0]):
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    return value if message(value[0]) and message(value[-1]) else None


def conversation(value: Any) -> list[Message] | None:
    """Return the messages of a list in OpenAI's format; None if any item is not a message."""
    messages = [message(each) for each in listed(value) or ()]
    return [each for each in messages if each] if messages and all(messages) else None


def message(value: Any) -> Message | None:
    """Return one message in OpenAI's format; None if it is not a message."""
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
        if field := fields.get(key):
            shaped[key] = field
    return {**shaped, **said_beside(fields), **said_beside(fields.get("additional_kwargs"))}


def as_langchain_writes(messages: MessagesJson) -> MessagesJson:
    """Return a model's messages, a list of OpenAI's, in the form in which LangChain dumps what a model is given."""
    inside = [part if part in ("[", "]", ",") else _constructor(part) for part in messages.parts]
    return MessagesJson(['{"messages":[', *inside, "]}"])


def _constructor(text: str) -> str:
    fields = parse(text)
    if not isinstance(fields, dict) or fields.get("role") not in _CLASSES:
        return text
    kind = _CLASSES[fields["role"]]
    calls = [call for call in fields.get("tool_calls") or () if isinstance(call, dict)]
    kwargs = {**fields, "type": kind.removesuffix("Message").lower()}
    del kwargs["role"]
    if calls:
        kwargs["tool_calls"] = [_langchain_call(call) for call in calls]
    return dump({"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": kwargs})


def _langchain_call(call: Message) -> Message:
    function = call.get("function") or {}
    arguments = parse(function.get("arguments"))
    return {
        "name": function.get("name"),
        "args": function.get("arguments") if arguments is None else arguments,
        "id": call.get("id"),
        "type": "tool_call",
    }


def said_beside(fields: Any) -> Message:
    """Return what a model said elsewhere than in its content: reasoning, a refusal, a legacy call, spoken words."""
    if not isinstance(fields, dict):
        return {}
    found = {key: fields[key] for key in _BESIDE_CONTENT if fields.get(key)}
    audio = fields.get("audio")
    if isinstance(audio, dict) and audio.get("transcript"):
        # Without its sound, which is as long as a hundred answers.
        found["audio"] = {key: audio[key] for key in ("id", "transcript") if audio.get(key)}
    return found


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a message, however LangChain has wrapped them."""
    if not isinstance(value, dict):
        return {}
    inner = value.get("kwargs") or value.get("data")
    return inner if isinstance(inner, dict) else value


def role_of(value: Any) -> str | None:
    """Return a message's role under OpenAI's name; None if it is not a message."""
    return _role(value, fields_of(value)) if isinstance(value, dict) else None


def _role(value: Any, fields: dict[str, Any]) -> str | None:
    path = value.get("id") if "kwargs" in value else None
    name = path[-1] if isinstance(path, list) and path else fields.get("role") or fields.get("type")
    return _ROLES.get(name) if isinstance(name, str) else None


def _content(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [part for part in value if not (isinstance(part, dict) and part.get("type") in CALL_PARTS)]


def _calls(fields: dict[str, Any], key: str) -> list[Message]:
    calls = fields.get(key)
    return [openai_call(call) for call in calls if isinstance(call, dict)] if calls and isinstance(calls, list) else []


def openai_call(call: dict[str, Any]) -> Message:
    """Return a tool call in OpenAI's shape, from any of the ways in which they are written."""
    function = call.get("function")
    described = function if isinstance(function, dict) else call
    arguments = described.get("args", described.get("arguments"))
    function = {"name": described.get("name"), "arguments": dump({} if arguments is None else arguments)}
    return {"id": call.get("id"), "type": "function", "function": function}
