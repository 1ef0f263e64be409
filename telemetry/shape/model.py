"""A model call: the conversation and its answer in OpenAI's shape, and what it cost."""

import re
from typing import Any

from telemetry.json_text import dump, parse
from telemetry.otlp import Attributes, Span
from telemetry.said import Said
from telemetry.shape.messages import Message, conversation, fields_of, message

_TOOLS = "llm.tools."
_TOOL = re.compile(r"llm\.tools\.\d+\.tool\.json_schema")
_SAID = "llm.output_messages.0.message."
_FLAT_CALL = re.compile(r"tool_calls\.(\d+)\.tool_call\.(id|function\.name|function\.arguments)")
# The definitions stand beside the messages; the rest is said elsewhere or says nothing.
_NO_PARAMETERS = {"tools", "functions", "model", "model_name", "_type", "messages"}


def shaped(span: Span) -> Attributes:
    """Return what is to be shown of a model call."""
    attributes = span.attributes
    answer = parse(attributes.get("output.value"))
    return {
        "input": _input(attributes),
        "output": _output(attributes, answer),
        "llm.invocation_parameters": _parameters(attributes),
        "langfuse.observation.cost_details": _cost(attributes, answer),
        "finish_reason": attributes.get("llm.finish_reason"),
    }


def _input(attributes: Attributes) -> str | None:
    given = attributes.get("input.value")
    asked = given if isinstance(given, Said) else parse(given)
    if isinstance(asked, dict):
        asked = conversation(asked.get("messages")) or asked.get("prompts") or asked
    tools = [value for key, value in attributes.items() if key.startswith(_TOOLS) and _TOOL.fullmatch(key)]
    if isinstance(asked, Said):
        return asked.beside(tools) if tools else asked.messages
    if asked is None:
        return None if given is None else dump(given)
    tools = [parse(tool) or tool for tool in tools]
    return dump({"messages": asked, "tools": tools} if tools else asked)


def _output(attributes: Attributes, answer: Any) -> str | None:
    if isinstance(said := attributes.get("output.value"), Said):
        return said
    said = [_generated(generation) for generation in _generations(answer)]
    if said:
        return dump(said[0] if len(said) == 1 else said)
    said_flat = _from_flat(attributes)
    if said_flat:
        return dump(said_flat)
    # A result without generations is that of a call that failed.
    value = None if isinstance(answer, dict) and "generations" in answer else attributes.get("output.value")
    return None if value is None else dump(value)


def _generations(answer: Any) -> list[Any]:
    found = answer.get("generations") if isinstance(answer, dict) else None
    groups = found if isinstance(found, list) else []
    return [each for group in groups for each in (group if isinstance(group, list) else [group])]


def _generated(generation: Any) -> Message | Any:
    if not isinstance(generation, dict):
        return generation
    return message(generation.get("message")) or {"role": "assistant", "content": generation.get("text")}


def _from_flat(attributes: Attributes) -> Message | None:
    flat = {key.removeprefix(_SAID): value for key, value in attributes.items() if key.startswith(_SAID)}
    if not flat:
        return None
    calls: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        if found := _FLAT_CALL.fullmatch(key):
            calls.setdefault(int(found[1]), {})[found[2].removeprefix("function.")] = value
    return message(
        {
            "role": flat.get("role", "assistant"),
            "content": flat.get("content", ""),
            "tool_calls": [call for _, call in sorted(calls.items())],
        }
    )


def _parameters(attributes: Attributes) -> str | None:
    given = attributes.get("llm.invocation_parameters")
    known = parse(given)
    if not isinstance(known, dict):
        return given
    return dump({key: value for key, value in known.items() if key not in _NO_PARAMETERS and value is not None})


def _cost(attributes: Attributes, answer: Any) -> str | None:
    """Some providers report what a call cost, in dollars, within its usage."""
    reported = attributes.get("llm.cost.total")
    for generation in _generations(answer) if reported is None else ():
        said = fields_of(generation.get("message") if isinstance(generation, dict) else None)
        about = said.get("response_metadata")
        for usage in (about.get("token_usage"), about.get("usage")) if isinstance(about, dict) else ():
            reported = usage.get("cost", reported) if isinstance(usage, dict) else reported
    is_number = isinstance(reported, (int, float)) and not isinstance(reported, bool)
    return dump({"total": reported}) if is_number else None
