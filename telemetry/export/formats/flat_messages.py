"""Messages as OpenInference writes them: an attribute for each field of each message."""

import os
import re
from collections.abc import Iterator
from typing import Any

from telemetry.export.formats.messages import CALL_PARTS, Message, openai_call, role_of
from telemetry.export.otlp import Attributes, Span
from telemetry.json_text import dump, parse

INPUT_MESSAGES, OUTPUT_MESSAGES = "llm.input_messages.", "llm.output_messages."
_FIELD = re.compile(r"(\d+)\.message\.(.+)")
_PART = re.compile(r"contents\.(\d+)\.message_content\.(.+)")
_CALL = re.compile(r"tool_calls\.(\d+)\.tool_call\.(id|function\.name|function\.arguments)")
_FUNCTION_CALL = {"function_call_name": "name", "function_call_arguments_json": "arguments"}
_IMAGES = ("image_url", "input_image", "image")


def input_messages(span: Span) -> Attributes:
    """Return the flat input messages of a model call; nothing if it has them already, hides them, or has none."""
    attributes = span.attributes
    if attributes.get("openinference.span.kind") != "LLM" or _are_hidden():
        return {}
    if any(key.startswith(INPUT_MESSAGES) for key in attributes):
        return {}
    given = parse(attributes.get("input.value"))
    listed = given.get("messages") if isinstance(given, dict) else given
    if not isinstance(listed, list):
        return {}
    messages = [each for each in listed if isinstance(each, dict) and "role" in each]
    return {
        f"{INPUT_MESSAGES}{at}.message.{key}": value
        for at, message in enumerate(messages)
        for key, value in _fields(message)
        if value is not None
    }


def read_messages(attributes: Attributes, prefix: str) -> list[Message]:
    """Return the messages below a prefix in OpenAI's shape; none where there are none."""
    fields: dict[int, Message] = {}
    for key, value in attributes.items():
        if key.startswith(prefix) and (found := _FIELD.fullmatch(key, len(prefix))):
            fields.setdefault(int(found[1]), {})[found[2]] = value
    return [_message(each) for _, each in sorted(fields.items())]


def _message(fields: Message) -> Message:
    parts: dict[int, Message] = {}
    calls: dict[int, Message] = {}
    function: Message = {}
    shaped: Message = {"role": _role(fields.get("role")), "content": fields.get("content", "")}
    for key, value in fields.items():
        if found := _PART.fullmatch(key):
            parts.setdefault(int(found[1]), {})[found[2]] = value
        elif found := _CALL.fullmatch(key):
            calls.setdefault(int(found[1]), {})[found[2].removeprefix("function.")] = value
        elif key in _FUNCTION_CALL:
            function[_FUNCTION_CALL[key]] = value
        elif key in ("name", "tool_call_id"):
            shaped[key] = value
    if parts:
        # A provider repeats its calls among the parts of the content.
        shown = [_content_part(part) for _, part in sorted(parts.items())]
        listed = [part for part in shown if part.get("type") not in CALL_PARTS]
        is_text = len(listed) == 1 and listed[0].get("type") == "text"
        shaped["content"] = listed[0].get("text", "") if is_text else listed or ""
    if calls:
        shaped["tool_calls"] = [openai_call(call) for _, call in sorted(calls.items())]
    if function:
        shaped["function_call"] = function
    return shaped


def _role(given: Any) -> str:
    return role_of({"role": given}) or str(given or "assistant")


def _content_part(part: Message) -> Message:
    url = part.get("image.image.url")
    if url is not None:
        return {"type": "image_url", "image_url": {"url": url}}
    return {key.removeprefix("message_content."): value for key, value in part.items()}


def _are_hidden() -> bool:
    # OpenInference's own switch, read as OpenInference reads it.
    return os.environ.get("OPENINFERENCE_HIDE_INPUT_MESSAGES", "").lower() == "true"


def _fields(message: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "role", message["role"]
    content = message.get("content")
    if isinstance(content, str):
        yield "content", content
    for at, part in enumerate(content if isinstance(content, list) else ()):
        yield from ((f"contents.{at}.message_content.{key}", value) for key, value in _part(part))
    calls = message.get("tool_calls")
    for at, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call.get("function") or {}
        yield f"tool_calls.{at}.tool_call.id", call.get("id")
        yield f"tool_calls.{at}.tool_call.function.name", function.get("name")
        yield f"tool_calls.{at}.tool_call.function.arguments", function.get("arguments")
    yield "name", message.get("name")
    yield "tool_call_id", message.get("tool_call_id")


def _part(part: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(part, dict):
        part = {"type": "text", "text": str(part)}
    if part.get("type") in _IMAGES:
        image = part.get("image_url", part.get("url"))
        yield "type", "image"
        yield "image.image.url", image.get("url") if isinstance(image, dict) else image
    elif isinstance(part.get("text"), str):
        yield "type", "text"
        yield "text", part["text"]
    else:
        yield "type", part.get("type")
        yield "text", dump(part)
