"""What the GenAI conventions say of spans, applied to spans as they arrive.

`genai_conventions.json` holds the facts: names, types, values, levels, with the version and the day they were read.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError

from telemetry.export.formats.otel_genai import OPERATION
from telemetry.export.otlp import Span

CONVENTIONS: dict[str, Any] = json.loads((Path(__file__).parent / "genai_conventions.json").read_text())
ATTRIBUTES: dict[str, str | list[str]] = CONVENTIONS["attributes"]
TYPES: dict[str, Callable[[Any], bool]] = {
    "any": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "double": lambda value: isinstance(value, float),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "string[]": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
}
# Of these the conventions allow other values where none of theirs applies.
OPEN = ("gen_ai.provider.name",)
LEVELS = ("required", "conditionally_required", "recommended", "opt_in")


class Fields(BaseModel):
    """Fields that are not listed are allowed everywhere."""

    model_config = ConfigDict(extra="allow", strict=True)


class Text(Fields):
    type: Literal["text"]
    content: str


class Reasoning(Fields):
    type: Literal["reasoning"]
    content: str


class ToolCall(Fields):
    type: Literal["tool_call"]
    name: str
    id: str | None = None
    arguments: Any = None


class ToolCallResponse(Fields):
    type: Literal["tool_call_response"]
    response: Any
    id: str | None = None


class Blob(Fields):
    type: Literal["blob"]
    modality: str
    content: str
    mime_type: str | None = None


class Uri(Fields):
    type: Literal["uri"]
    modality: str
    uri: str
    mime_type: str | None = None


class File(Fields):
    type: Literal["file"]
    modality: str
    file_id: str
    mime_type: str | None = None


class Generic(Fields):
    type: str


KNOWN = ("text", "reasoning", "tool_call", "tool_call_response", "blob", "uri", "file")


def kind_of(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    return str(kind) if kind in KNOWN else "generic"


Part = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Reasoning, Tag("reasoning")]
    | Annotated[ToolCall, Tag("tool_call")]
    | Annotated[ToolCallResponse, Tag("tool_call_response")]
    | Annotated[Blob, Tag("blob")]
    | Annotated[Uri, Tag("uri")]
    | Annotated[File, Tag("file")]
    | Annotated[Generic, Tag("generic")],
    Discriminator(kind_of),
]


class Message(Fields):
    role: str
    parts: list[Part]
    name: str | None = None


class Answer(Message):
    """The reason is optional by now, and was required until 1.41: readers of that schema drop a message without it."""

    finish_reason: str


class Definition(Fields):
    type: str
    name: str


class Document(Fields):
    id: str | None = None
    score: float | int | None = None


SCHEMAS: dict[str, TypeAdapter[Any]] = {
    "gen_ai.input.messages": TypeAdapter(list[Message]),
    "gen_ai.output.messages": TypeAdapter(list[Answer]),
    "gen_ai.system_instructions": TypeAdapter(list[Part]),
    "gen_ai.tool.definitions": TypeAdapter(list[Definition]),
    "gen_ai.retrieval.documents": TypeAdapter(list[Document]),
}


def conventions_of(operation: str) -> dict[str, Any] | None:
    return CONVENTIONS["operations"].get(CONVENTIONS["same_as"].get(operation, operation))


def violations(span: Span) -> Iterator[str]:
    """What the conventions do not allow, or miss, in a span."""
    operation = span.attributes.get(OPERATION)
    for key, value in span.attributes.items():
        if key.startswith("gen_ai.") or key == "error.type":
            yield from (f"{span.name}: {wrong}" for wrong in _of_attribute(key, value))
    if operation is None:
        yield from (f"{span.name}: {key} is of no operation" for key in span.attributes if key.startswith("gen_ai."))
    elif (known := conventions_of(str(operation))) is None:
        yield f"{span.name}: nothing is known of {operation}"
    else:
        yield from (f"{span.name}: {wrong}" for wrong in _of_operation(span, known))


def _of_attribute(key: str, value: Any) -> Iterator[str]:
    known = ATTRIBUTES.get(key)
    if known is None:
        yield f"{key} is no attribute of the conventions"
    elif isinstance(known, list):
        if value not in known and (key not in OPEN or not isinstance(value, str)):
            yield f"{key} is {value!r}, which is none of its values"
    elif not TYPES[known](value):
        yield f"{key} is no {known}: {value!r}"
    elif key in SCHEMAS:
        try:
            SCHEMAS[key].validate_json(value)
        except ValidationError as error:
            yield f"{key} is not as its schema says: {error.errors(include_url=False)[:2]}"


def _of_operation(span: Span, known: dict[str, Any]) -> Iterator[str]:
    attributes = span.attributes
    listed = {key for level in LEVELS for key in known[level]}
    yield from (f"{key} is missing" for key in known["required"] if key not in attributes)
    yield from (
        f"{key} is not of this operation" for key in attributes if key.startswith("gen_ai.") and key not in listed
    )
    if (span.status == "ERROR") != ("error.type" in attributes):
        yield f"the status is {span.status}, and error.type {attributes.get('error.type')}"
    if attributes.get("session.id") != attributes.get("gen_ai.conversation.id"):
        yield "the conversation is not the session"
    if "gen_ai.response.time_to_first_chunk" in attributes and attributes.get("gen_ai.request.stream") is not True:
        yield "a stream that is not called one"
