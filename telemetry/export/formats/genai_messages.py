"""Write chat messages as OpenTelemetry's GenAI conventions do: each is a role and a list of parts."""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from telemetry.export.formats.messages import Message
from telemetry.json_text import dump, parse, written
from telemetry.lru_cache import ENTRY_BYTES, LruCache
from telemetry.messages_json import MessagesJson

# The most bytes of cached messages and definitions, with the text that each was converted from.
_MAX_BYTES = 4 * 1024 * 1024
# What stands for messages that were left out, and a bit more.
_GAP = re.compile(r"\[… (\d+) messages left out …\]")
_GAP_BYTES = 120
# A first message, a last one, and one between them.
_FEWEST = 3
_TEXTS = ("text", "input_text", "output_text")
_THOUGHTS = ("reasoning", "thinking")
_MODALITIES = ("image", "audio", "video")
_FILES = (*_MODALITIES, "file", "document", "media")
# Parts of these types have fields that an unknown part of the same name may lack.
_TYPES = frozenset(
    {
        *("text", "reasoning", "tool_call", "tool_call_response", "server_tool_call", "server_tool_call_response"),
        *("blob", "file", "uri", "compaction"),
    }
)


def _weigh(text: str, converted: str) -> int:
    return len(text) + len(converted) + 2 * ENTRY_BYTES


class GenaiMessages:
    """Converts messages and definitions of tools from OpenAI's format; those that come again are converted once.

    `max_bytes` is the limit of a conversation, which is longer in this schema than in OpenAI's; 0 means none.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self._max_bytes = max_bytes
        self._messages: LruCache[str, str] = LruCache(_MAX_BYTES // 2, _weigh)
        self._tools: LruCache[str, str] = LruCache(_MAX_BYTES // 2, _weigh)

    def messages(self, given: Any, role: str) -> MessagesJson | None:
        """Return the list of these messages; None where there are none.

        `role` is whose words a plain text is.
        """
        return _listed(self._converted(given, role))

    def answers(self, given: Any, reason: str) -> MessagesJson | None:
        """Return the list of these answers, each with the reason why it ended.

        The conventions have that on the span alone by now; readers of their former schema drop a message without it.
        """
        ending = f',"finish_reason":{written(reason).decode()}}}'
        return _listed([text[:-1] + ending for text in self._converted(given, "assistant")])

    def conversation(self, given: Any) -> tuple[MessagesJson | None, int]:
        """Return what a model was asked, and how many bytes were left out of it.

        Above the limit: the first message, the last ones, and how many were between them.
        """
        texts = self._converted(given, "user")
        sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
        if not self._max_bytes or sum(sizes) + len(sizes) < self._max_bytes or len(texts) < _FEWEST:
            return _listed(texts), 0
        room = self._max_bytes - sizes[0] - sizes[-1] - _GAP_BYTES
        needed = accumulate(size + 1 for size in sizes[-2:0:-1])
        kept = min(1 + bisect_right(list(needed), room), len(texts) - 2)
        known = _GAP.search(texts[1])
        count = len(texts) - 1 - kept + (int(known[1]) - 1 if known else 0)
        # In ASCII, so that a long conversation in ASCII takes one byte per character.
        gap = json.dumps(
            {"role": "system", "parts": [_text(f"[… {count} messages left out …]")]}, separators=(",", ":")
        )
        return _listed([texts[0], gap, *texts[-kept:]]), sum(sizes[1:-kept])

    def _converted(self, given: Any, role: str) -> list[str]:
        if isinstance(given, MessagesJson):
            parts = given.messages.parts
            texts = parts[1::2] if parts[0] == "[" else [part for part in parts if part != "[]"]
        else:
            parsed = parse(given) if isinstance(given, str) else given
            value = given if parsed is None else parsed
            listed = value if isinstance(value, list) else [value]
            texts = [text for each in listed if (text := each if isinstance(each, str) else written(each).decode())]
        known = zip(texts, self._messages.get_all(texts), strict=True)
        return [found or self._message(text, role) for text, found in known]

    def tools(self, definitions: list[str]) -> MessagesJson | None:
        """Return the list of these definitions, each of them in JSON; None where there are none."""
        known = self._tools.get
        return _listed([known(text) or self._tool(text) for text in definitions])

    def _message(self, text: str, role: str) -> str:
        fields = parse(text)
        if not isinstance(fields, dict) or "role" not in fields:
            # Whose words they are is known to the caller only: not cached.
            return dump({"role": role, "parts": [_text(text)]})
        converted = dump(genai_message(fields))
        self._messages.put(text, converted)
        return converted

    def _tool(self, text: str) -> str:
        converted = dump(_definition(parse(text), text))
        self._tools.put(text, converted)
        return converted


def _listed(texts: list[str]) -> MessagesJson | None:
    if not texts:
        return None
    parts = [","] * (2 * len(texts) + 1)
    parts[1::2] = texts
    parts[0], parts[-1] = "[", "]"
    return MessagesJson(parts)


def genai_message(message: Message) -> Message:
    """Return a message of OpenAI's format as a role and its parts.

    A file that is inside the message is a `blob`, or a `uri` if it is written as one: redaction replaces its content.

    Example:
        >>> genai_message({"role": "user", "content": "Hello"})
        {'role': 'user', 'parts': [{'type': 'text', 'content': 'Hello'}]}
    """
    role = str(message["role"])
    content = message.get("content")
    if role in ("tool", "function"):
        result = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}
        named = {"name": message["name"]} if message.get("name") else {}
        return {"role": "tool", "parts": [result], **named}
    parts = [*_thoughts(message.get("reasoning_content")), *_contents(content), *_beside(message)]
    return {"role": role, "parts": parts, **({"name": str(message["name"])} if message.get("name") else {})}


def _text(value: Any) -> Message:
    return {"type": "text", "content": dump(value)}


def _thoughts(value: Any) -> Iterator[Message]:
    if value:
        yield {"type": "reasoning", "content": dump(value)}


def _contents(content: Any) -> Iterator[Message]:
    if isinstance(content, list):
        yield from map(_part, content)
    elif content not in (None, ""):
        yield _text(content)


def _beside(message: Message) -> Iterator[Message]:
    """Yield what a model said elsewhere than in its content."""
    if refusal := message.get("refusal"):
        yield {"type": "refusal", "content": refusal}
    audio = message.get("audio")
    if isinstance(audio, dict) and audio.get("transcript"):
        yield _text(audio["transcript"])
    function = message.get("function_call")
    calls = message.get("tool_calls")
    for call in [*(calls if isinstance(calls, list) else ()), *([function] if isinstance(function, dict) else ())]:
        if isinstance(call, dict):
            yield _call(call)


def _call(call: Message) -> Message:
    function = call.get("function")
    described = function if isinstance(function, dict) else call
    given = described.get("arguments")
    parsed = parse(given)
    named = {"type": "tool_call", "id": call.get("id"), "name": str(described.get("name") or "")}
    return named if given is None else {**named, "arguments": given if parsed is None else parsed}


def _part(part: Any) -> Message:
    if not isinstance(part, dict):
        return _text(part)
    kind, text = str(part.get("type")), part.get("text")
    if kind in _TEXTS and isinstance(text, str):
        return _text(text)
    if kind in _THOUGHTS and (thought := _thought(part)):
        return {"type": "reasoning", "content": thought}
    if kind == "tool_result":
        return {"type": "tool_call_response", "id": part.get("tool_use_id"), "response": part.get("content")}
    return _file(kind, part) or {**part, "type": f"other_{kind}" if kind in _TYPES else kind}


def _thought(part: Message) -> str:
    summary = part.get("summary")
    texts = [each.get("text") for each in summary if isinstance(each, dict)] if isinstance(summary, list) else []
    found = [part.get("reasoning"), part.get("thinking"), part.get("text"), part.get("content"), *texts]
    return "\n".join(each for each in found if isinstance(each, str) and each)


def _file(kind: str, part: Message) -> Message | None:
    """Return a file in any of the ways in which libraries write one; None where it is none."""
    if not any(word in kind for word in _FILES):
        return None
    inner = next((part[key] for key in (kind, "image_url", "file", "source", "input_audio") if key in part), None)
    fields = {**part, **inner} if isinstance(inner, dict) else {**part, "url": inner} if inner else part
    said = next((fields[key] for key in ("mime_type", "media_type") if isinstance(fields.get(key), str)), "")
    found = next((each for each in _MODALITIES if each in kind or said.startswith(f"{each}/")), "document")
    if not said and isinstance(fields.get("format"), str):
        said = f"{found}/{fields['format']}"
    about = {"modality": found, **({"mime_type": said} if said else {})}
    name = fields.get("filename") or fields.get("name")
    named = {"name": name} if isinstance(name, str) else {}
    for types, key, names in (
        ("uri", "uri", ("url", "uri", "file_uri", "file_data", "file_url")),
        ("blob", "content", ("base64", "data")),
        ("file", "file_id", ("file_id", "id")),
    ):
        value = next((fields[each] for each in names if isinstance(fields.get(each), str)), None)
        if value and (types != "file" or "file" in kind or "file_id" in fields):
            return {"type": types, **about, key: value, **named}
    return None


def _definition(tool: Any, text: str) -> Message:
    if not isinstance(tool, dict):
        return {"type": "unknown", "name": "unknown", "definition": text}
    function = tool.get("function")
    fields = function if isinstance(function, dict) else tool
    kind = str(tool.get("type") or "function")
    name = fields.get("name")
    parameters = fields.get("parameters", fields.get("input_schema"))
    if not isinstance(name, str) or (kind != "function" and parameters is None):
        # A tool of the provider's own, such as a search, has options instead of parameters.
        return {**tool, "type": kind, "name": name if isinstance(name, str) else kind}
    shaped = {"type": "function", "name": name, "description": fields.get("description"), "parameters": parameters}
    return {key: value for key, value in shaped.items() if value is not None}
