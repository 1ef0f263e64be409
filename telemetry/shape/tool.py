"""A tool call: its arguments, its result, how large that is, whether it went well."""

from telemetry.json_text import dump, parse
from telemetry.otlp import Attributes, Span
from telemetry.shape.messages import fields_of
from telemetry.shape.node import without_history

PREVIEW = 200


def shaped(span: Span) -> Attributes:
    """Return what is to be shown of a tool call."""
    given, came = span.attributes.get("input.value"), span.attributes.get("output.value")
    answer = parse(came)
    said = fields_of(answer) if _is_message(answer) else {}
    result = said.get("content") if said else without_history(answer) if answer is not None else came
    text = None if result is None else dump(result)
    return {
        "input": None if given is None else dump(given),
        "output": text,
        "bytes": None if text is None else len(text.encode()),
        "tool_call_id": said.get("tool_call_id"),
        "success": span.status != "ERROR" and said.get("status") != "error",
    }


def previewed(span: Span) -> Span:
    """Return a tool call with the beginning of its input in one line; it is cut from what has been redacted already."""
    if span.attributes.get("openinference.span.kind") != "TOOL":
        return span
    given = span.attributes.get("langfuse.observation.input", span.attributes.get("input.value"))
    return span if given is None else span.but(attributes={**span.attributes, "input.preview": _line(given)})


def _line(given: object) -> str:
    text = " ".join(dump(given)[: 4 * PREVIEW].split())
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"


def _is_message(answer: object) -> bool:
    fields = fields_of(answer)
    return isinstance(answer, dict) and fields.get("type") == "tool" and "content" in fields
