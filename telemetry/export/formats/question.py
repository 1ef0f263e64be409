"""Find what a person asked and was answered in the values of other frameworks' spans."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from telemetry.export.formats.flat_messages import INPUT_MESSAGES, OUTPUT_MESSAGES, read_messages
from telemetry.export.formats.messages import Message, conversation, message
from telemetry.export.otlp import Attributes
from telemetry.json_text import parse

# Fields that hold them, the most telling first; the later ones hold others.
_QUESTIONS = ("question", "query", "task", "user_msg", "user_message", "new_message", "input", "prompt", "message")
_QUESTIONS += ("text", "content", "parts", "messages", "input_args", "kwargs")
_ANSWERS = ("answer", "final_answer", "final_output", "output", "raw", "response", "result", "text", "content", "parts")
_ANSWERS += ("messages",)
# A value that its program has not written as JSON.
_REPR = re.compile(r"[A-Za-z_][\w.]*\(\w+=|<[\w.]+ object at ")
_MAX_DEPTH = 4
_MAX_SHOWN = 2_000


def model_said(attributes: Attributes) -> tuple[str, str]:
    """Return what a model was asked last by a user, and the words that it answered; empty strings for neither."""
    asked = _messages(attributes, "input.value", INPUT_MESSAGES)
    said = _messages(attributes, "output.value", OUTPUT_MESSAGES)
    questions = [_text(each, _QUESTIONS) for each in asked if each["role"] == "user"]
    answers = [_text(each, _ANSWERS) for each in said if each["role"] == "assistant"]
    return next(filter(None, reversed(questions)), ""), next(filter(None, reversed(answers)), "")


def run_said(attributes: Attributes) -> tuple[str, str]:
    """Return the question and the answer of a run; empty strings where its values are not for people."""
    return readable(attributes.get("input.value"), _QUESTIONS), readable(attributes.get("output.value"), _ANSWERS)


def readable(value: Any, fields: Iterable[str]) -> str:
    """Return the text in a value; the value itself where it is short and plain; an empty string for anything else."""
    parsed = parse(value)
    text = _text(value if parsed is None else parsed, tuple(fields))
    if text or not isinstance(value, str) or not isinstance(parsed, dict) or len(value) > _MAX_SHOWN:
        return text
    return value if all(map(_is_plain, parsed.values())) else ""


def _is_plain(value: Any) -> bool:
    return not isinstance(value, (dict, list)) and not (isinstance(value, str) and _REPR.match(value))


def _messages(attributes: Attributes, key: str, prefix: str) -> list[Message]:
    given = parse(attributes.get(key))
    listed = given.get("messages") if isinstance(given, dict) and "messages" in given else given
    alone = message(listed) if isinstance(listed, dict) else None
    return [alone] if alone else conversation(listed) or read_messages(attributes, prefix)


def _text(value: Any, fields: tuple[str, ...], depth: int = 0) -> str:
    if isinstance(value, str):
        return "" if _REPR.match(value) else value
    if depth > _MAX_DEPTH or not value:
        return ""
    if isinstance(value, list):
        return _text(value[-1], fields, depth + 1) if conversation(value) else "".join(_texts(value))
    if not isinstance(value, dict):
        return ""
    found = (_text(value[name], fields, depth + 1) for name in fields if name in value)
    if text := next(filter(None, found), ""):
        return text
    (alone,) = value.values() if len(value) == 1 else (None,)
    return alone if isinstance(alone, str) else ""


def _texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            yield text
