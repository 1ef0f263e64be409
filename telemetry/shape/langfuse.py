"""The shape that Langfuse shows well; other backends read it too."""

from collections.abc import Callable

from telemetry.json_text import parse
from telemetry.otlp import Attributes, Span
from telemetry.shape import model, node, tool
from telemetry.shape.openinference import openinference

KIND = "openinference.span.kind"
INPUT, OUTPUT = "langfuse.observation.input", "langfuse.observation.output"
METADATA = "langfuse.observation.metadata."

# What is filterable of an observation, beside what somebody sets under these prefixes by hand.
FILTERABLE = ("langgraph_node", "langgraph_step", "messages", "finish_reason", "tool_call_id", "bytes", "success")

# Langfuse takes these plain names for its own fields: `model` alone makes any span a generation.
_MISREAD = ("model", "input", "output", "prompt", "events")
_SAID_ELSEWHERE = ("input.value", "output.value", "input.mime_type", "output.mime_type", "metadata", "tool.description")
_REPEATED = ("llm.input_messages.", "llm.output_messages.", "llm.tools.", "llm.prompts.", "retrieval.documents.")

_SHAPES: dict[str, Callable[[Span], Attributes]] = {"LLM": model.shaped, "TOOL": tool.shaped}


def langfuse(span: Span) -> Span:
    """Return the span as Langfuse shows it well: chat messages, what is new, what can be filtered."""
    span = openinference(span)
    if KIND in span.attributes:
        shaped = _SHAPES.get(str(span.attributes[KIND]), node.shaped)(span)
        span = span.but(attributes={**_kept(span.attributes), **_place(span.attributes), **_filed(shaped)})
    return span.but(attributes=_unmistakable({**_verdict(span), **span.attributes}))


def _verdict(span: Span) -> Attributes:
    if span.status == "ERROR":
        return {"langfuse.observation.level": "ERROR", "langfuse.observation.status_message": span.message}
    return {"langfuse.observation.status_message": "waits for an answer"} if "interrupted" in span.attributes else {}


def _kept(attributes: Attributes) -> Attributes:
    return {
        key: value for key, value in attributes.items() if key not in _SAID_ELSEWHERE and not key.startswith(_REPEATED)
    }


def _place(attributes: Attributes) -> Attributes:
    known = parse(attributes.get("metadata"))
    if not isinstance(known, dict):
        return {}
    return {METADATA + key: known[key] for key in ("langgraph_node", "langgraph_step") if key in known}


def _filed(shaped: Attributes) -> Attributes:
    names = {"input": INPUT, "output": OUTPUT, **{key: METADATA + key for key in FILTERABLE}}
    return {names.get(key, key): value for key, value in shaped.items() if value is not None}


def _unmistakable(attributes: Attributes) -> Attributes:
    if attributes.keys().isdisjoint(_MISREAD):
        return attributes
    return {f"span.{key}" if key in _MISREAD else key: value for key, value in attributes.items()}
