"""Read chat messages in OpenAI's format, GenAI's parts, OpenInference's flat keys and LangChain's JSON."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from telemetry.export.media import REFERENCE
from telemetry.export.otlp import Attributes
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
MAX_DEPTH = 4
# The most messages of a list that a page shows.
MAX_PARTS = 1_000
FLAT = re.compile(r"(\d{1,6})\.message\.(.+)")
FLAT_CALL = re.compile(r"tool_calls\.(\d{1,6})\.tool_call\.(id|function\.name|function\.arguments)")
FLAT_PART = re.compile(r"contents\.(\d{1,6})\.message_content\.(text|image\.image\.url)")
IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")


@dataclass(frozen=True)
class ToolCall:
    """A tool call of a model."""

    name: str
    arguments: Any
    id: str = ""


@dataclass(frozen=True)
class Image:
    """An image in a message; only those that are part of the data are shown, of others only the address."""

    url: str

    @property
    def drawn(self) -> bool:
        """Whether the page can show it without loading it from another host."""
        return IMAGE.fullmatch(self.url) is not None


@dataclass(frozen=True)
class MediaFile:
    """A file that was uploaded beside the data."""

    type: str
    id: str

    @property
    def element(self) -> str:
        """The element that shows it: img, audio or video, or else a link."""
        kind = "" if self.type == "image/svg+xml" else self.type.partition("/")[0]
        return {"image": "img", "audio": "audio", "video": "video"}.get(kind, "a")


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: str
    content: str
    name: str = ""
    calls: Sequence[ToolCall] = ()
    call_id: str = ""
    reasoning: str = ""
    images: Sequence[Image] = ()
    media: Sequence[MediaFile] = ()


@dataclass(frozen=True)
class Content:
    """The input or output of an observation: its messages, or else any value, parsed if it is JSON, and its files."""

    messages: Sequence[Message]
    value: Any = None

    @property
    def media(self) -> list[MediaFile]:
        """The files in a value that is no messages."""
        return references(self.value)


@dataclass
class _Parts:
    """The combined parts of a message."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    media: list[MediaFile] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    call_id: str = ""


def references(value: Any) -> list[MediaFile]:
    """Return the files that a value refers to, each once."""
    found = REFERENCE.finditer(text(value)) if value is not None else ()
    return list(dict.fromkeys(MediaFile(each["type"], each["id"]) for each in found))


def input_content(observation: Observation) -> Content:
    """Return the input of an observation."""
    return _content(observation, "langfuse.observation.input", "llm.input_messages.", observation.input)


def output_content(observation: Observation) -> Content:
    """Return the output of an observation."""
    return _content(observation, "langfuse.observation.output", "llm.output_messages.", observation.output)


def content_of(value: Any) -> Content:
    """Return any value as its messages, or else parsed if it is JSON."""
    messages = _messages(parsed(value))
    return Content(messages, None if messages else parsed(value))


def question(observation: Observation) -> str:
    """Return the question in an observation's input, if there is one."""
    return _last_words(input_content(observation), "user")


def answer(observation: Observation) -> str:
    """Return the answer in an observation's output, if there is one."""
    return _last_words(output_content(observation), "assistant")


def _last_words(content: Content, role: str) -> str:
    said = [message.content for message in content.messages if message.role == role and message.content]
    if said:
        return said[-1]
    return "" if content.messages or content.value is None else _plain(content.value)


def _plain(value: Any) -> str:
    """Return the question and its options if the value has these fields, or else the value."""
    match value:
        case {"question": str(asked), "options": [*options]}:
            return f"{asked} ({', '.join(map(text, options))})"
        case {"question": str(asked)}:
            return asked
    return text(value)


def _content(observation: Observation, first: str, flat: str, otherwise: Any) -> Content:
    messages = (
        _messages(parsed(observation.attributes.get(first)))
        or _flat_messages(observation.attributes, flat)
        or _messages(parsed(otherwise))
    )
    return Content(messages, None if messages else parsed(otherwise))


def _messages(value: Any, depth: int = 0) -> list[Message]:
    """Return the messages in a value, or in one of its known fields; none if any part is not a message."""
    if depth > MAX_DEPTH:
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
    if role is None or not {"content", "tool_calls", "parts", "reasoning_content"} & fields.keys():
        return None
    parts = _Parts()
    _take(parts, fields.get("content"))
    _take(parts, fields.get("parts"))
    extra = fields.get("additional_kwargs")
    for holder in (fields, extra if isinstance(extra, Mapping) else {}):
        parts.reasoning += [_word(holder[name]) for name in ("reasoning_content", "reasoning") if holder.get(name)]
    calls = fields.get("tool_calls")
    listed = [_call(call) for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    content = "\n".join(parts.texts)
    return Message(
        role,
        REFERENCE.sub(r"[\g<type>]", content),
        _word(fields.get("name")),
        listed or parts.calls,
        _word(fields.get("tool_call_id")) or parts.call_id,
        "\n".join(dict.fromkeys(parts.reasoning)),
        parts.images,
        list(dict.fromkeys([*parts.media, *references(content)])),
    )


def _role(value: Mapping[str, Any], fields: Mapping[str, Any]) -> str | None:
    path = value.get("id")
    if fields is not value and isinstance(path, list) and path:
        return CLASSES.get(_word(path[-1]))
    said = fields.get("role") or fields.get("type") or value.get("type")
    return ROLES.get(said, said) if isinstance(said, str) else None


def _take(parts: _Parts, value: Any) -> None:
    """Add a message's content, or one part of it, to the combined parts."""
    match value:
        case None:
            pass
        case [*items]:
            for item in items[:MAX_PARTS]:
                _take(parts, item)
        case {"type": "reasoning" | "thinking" | "reasoning_content"}:
            said = next((value[name] for name in ("content", "thinking", "reasoning", "text") if value.get(name)), "")
            parts.reasoning += [text(said)] if said else []
        case {"type": "tool_call" | "tool_use" | "function_call"}:
            parts.calls.append(_call(value))
        case {"type": "tool_call_response", **rest}:
            parts.call_id = _word(value.get("id"))
            parts.texts.append(text(rest.get("response", rest.get("result", ""))))
        case Mapping() if found := _files_of(value):
            parts.media += found
        case {"text": str(said)} | {"type": "text", "content": str(said)}:
            parts.texts.append(said)
        case Mapping() if image := _image(value):
            parts.images.append(image)
        case _:
            parts.texts.append(text(value))


def _files_of(part: Mapping[str, Any]) -> list[MediaFile]:
    """Return the files of a part that holds nothing else."""
    return [] if isinstance(part.get("text"), str) else references(part)


def _image(part: Mapping[str, Any]) -> Image | None:
    """Return the image of a part in the format of OpenAI, Anthropic, LangChain or GenAI."""
    match part:
        case {"image_url": {"url": str(url)}} | {"image_url": str(url)}:
            return Image(url)
        case (
            {"source": {"type": "base64", "media_type": str(kind), "data": str(data)}}
            | {"type": "image", "mime_type": str(kind), "base64": str(data)}
            | {"type": "image", "mime_type": str(kind), "data": str(data)}
            | {"type": "blob", "mime_type": str(kind), "content": str(data)}
        ) if kind.startswith("image/"):
            return Image(f"data:{kind};base64,{data}")
        case {"type": "image", "url": str(url)} | {"type": "uri", "modality": "image", "uri": str(url)}:
            return Image(url)
    return None


def _call(value: Mapping[str, Any]) -> ToolCall:
    function = value["function"] if isinstance(value.get("function"), Mapping) else value
    arguments = next((function[name] for name in ("args", "arguments", "input") if name in function), None)
    return ToolCall(_word(function.get("name")), parsed(arguments), _word(value.get("id")))


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
    parts = [(int(found[1]), found[2], value) for name, value in fields.items() if (found := FLAT_PART.fullmatch(name))]
    texts = [text(value) for _, kind, value in sorted(parts, key=lambda part: part[0]) if kind == "text"]
    return Message(
        ROLES.get(role, role),
        "\n".join([*([text(fields["content"])] if fields.get("content") else []), *texts]),
        _word(fields.get("name")),
        _flat_calls(fields),
        _word(fields.get("tool_call_id")),
        _word(fields.get("reasoning_content")),
        [Image(text(value)) for _, kind, value in parts if kind != "text"],
    )


def _flat_calls(fields: Attributes) -> list[ToolCall]:
    grouped: dict[int, Attributes] = {}
    for name, value in fields.items():
        if found := FLAT_CALL.fullmatch(name):
            grouped.setdefault(int(found[1]), {})[found[2]] = value
    return [_flat_call(call) for _, call in sorted(grouped.items())]


def _flat_call(call: Attributes) -> ToolCall:
    return ToolCall(_word(call.get("function.name")), parsed(call.get("function.arguments")), _word(call.get("id")))
