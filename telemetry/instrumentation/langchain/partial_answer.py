"""Record the partial answer of a model whose stream was interrupted."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import AIMessageChunk
from opentelemetry.util.types import AttributeValue

from telemetry.instrumentation.langchain.serialize import openai_message_of
from telemetry.internal_errors import handle_internal_errors
from telemetry.messages_json import MessagesJson
from telemetry.plain_data import is_a, safe_json

_PREFIX = "llm.output_messages.0.message"


def worth_keeping(token: Any, chunk: Any) -> Any:
    """Return the part of a chunk to keep: its text, or the message if it has more than text."""
    message: Any = getattr(chunk, "message", None)
    if is_a(message, AIMessageChunk) and (
        type(message.content) is list or message.tool_call_chunks or message.additional_kwargs
    ):
        return message
    return token


def partial_output(pieces: Sequence[Any]) -> dict[str, AttributeValue]:
    """Return the attributes of a partial answer from its chunks."""
    text = "".join(map(_text_of, pieces))
    attributes: dict[str, AttributeValue] = {
        "output.value": text,
        f"{_PREFIX}.role": "assistant",
        f"{_PREFIX}.content": text,
    }
    with handle_internal_errors("join the pieces of an answer"):
        if any(is_a(piece, AIMessageChunk) for piece in pieces):
            joined: Any = reduce(add, map(_as_message, pieces))
            shaped = openai_message_of(joined)
            attributes |= {"output.value": MessagesJson([safe_json(shaped)]), "output.mime_type": "application/json"}
            attributes |= _calls(shaped)
    return attributes


def _as_message(piece: Any) -> Any:
    return piece if is_a(piece, AIMessageChunk) else AIMessageChunk(content=piece)


def _calls(message: dict[str, Any]) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    for at, call in enumerate(message.get("tool_calls") or ()):
        prefix = f"{_PREFIX}.tool_calls.{at}.tool_call"
        function = call["function"]
        known = {"id": call["id"], "function.name": function["name"], "function.arguments": function["arguments"]}
        attributes |= {f"{prefix}.{key}": value for key, value in known.items() if value}
    return attributes


def _text_of(piece: Any) -> str:
    if is_a(piece, AIMessageChunk):
        return _text_of(piece.content)
    if type(piece) is list:
        return "".join(map(_text_of, piece))
    return str(piece.get("text") or "") if type(piece) is dict else str(piece)
