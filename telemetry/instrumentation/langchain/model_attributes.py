"""The attributes of a model call in OpenInference's conventions, without converting its messages to dicts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import Generation, LLMResult
from opentelemetry.util.types import AttributeValue

from telemetry.instrumentation.langchain import openinference_internals as internals
from telemetry.plain_data import safe_json

Attributes = dict[str, AttributeValue]
_WAYS = ("input", "output")
_DEFINITIONS = ("tools", "functions")
_RESPONSE_IDS = {
    "id": "gen_ai.response.id",
    "system_fingerprint": "openai.response.system_fingerprint",
    "service_tier": "openai.response.service_tier",
}


def request_attributes(extra: Mapping[str, Any]) -> Attributes:
    """Return the attributes that are known at the start of a call: parameters, tools, provider."""
    parameters: Mapping[str, Any] = extra["invocation_params"]
    plain = {key: value for key, value in parameters.items() if key not in _DEFINITIONS}
    tools = parameters.get("tools") or ()
    attributes: Attributes = {f"llm.tools.{at}.tool.json_schema": _json(tool) for at, tool in enumerate(tools)}
    if parameters:
        attributes["llm.invocation_parameters"] = _json(plain)
    attributes.update(function_definitions(parameters))
    attributes.update(internals.llm_provider(extra))
    attributes.update(internals.llm_system(extra))
    attributes.update(internals.model_name(None, extra))
    return attributes


def response_attributes(response: LLMResult, extra: Mapping[str, Any]) -> Attributes:
    """Return the attributes that are known at the end of a call: answer, usage, model."""
    outputs = {
        "llm_output": response.llm_output,
        "generations": [_generations(group) for group in response.generations],
    }
    known = (
        *internals.output_messages(outputs),
        *internals.model_name(outputs, extra),
        *internals.token_counts(outputs),
        *internals.finish_reason(outputs),
        *_function_call(outputs),
        *_cost(response),
    )
    return {**dict(flatten(known)), **response_ids(response)}


def function_definitions(parameters: Mapping[str, Any]) -> Attributes:
    """Return the definitions of functions in OpenAI's former format, after those of the tools."""
    functions, first = parameters.get("functions"), len(parameters.get("tools") or ())
    listed = functions if isinstance(functions, (list, tuple)) else ()
    return {
        f"llm.tools.{at}.tool.json_schema": _json({"type": "function", "function": function})
        for at, function in enumerate(listed, start=first)
    }


def response_ids(response: LLMResult) -> Attributes:
    """Return the provider's ids of the response, under the names of the GenAI conventions."""
    for message in messages_of(response) or ():
        about = message.response_metadata
        found = {name: about.get(key) for key, name in _RESPONSE_IDS.items()}
        return {name: value for name, value in found.items() if isinstance(value, str) and value}
    return {}


def cost_attributes(response: LLMResult, price: tuple[float, float] | None) -> Attributes:
    """Return what a call cost, at this price of a million tokens in and out; nothing if the model reports none."""
    if price is None:
        return {}
    for message in messages_of(response) or ():
        usage = getattr(message, "usage_metadata", None)
        if isinstance(usage, Mapping):
            prompt, completion = (usage[f"{way}_tokens"] * at / 1e6 for way, at in zip(_WAYS, price, strict=True))
            return {
                "llm.cost.prompt": prompt,
                "llm.cost.completion": completion,
                "llm.cost.total": prompt + completion,
            }
    return {}


def flatten(fields: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, AttributeValue]]:
    """Yield flat attributes: nested fields and list items under a dotted name.

    OpenInference's own function uses the classes of `typing`, which takes three times as long.
    """
    for key, value in fields:
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", each) for name, each in flatten(value.items()))
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for at, item in enumerate(value):
                yield from ((f"{key}.{at}.{name}", each) for name, each in flatten(item.items()))
        elif value is not None:
            yield key, value.value if isinstance(value, Enum) else value


def messages_of(response: LLMResult) -> list[BaseMessage] | None:
    """Return the messages of a model's response, None if any part of it is not a message."""
    messages = [getattr(each, "message", None) for group in response.generations for each in group]
    messages = [message for message in messages if isinstance(message, BaseMessage)]
    return messages if messages and len(messages) == len(messages) else None


def answer_of(response: LLMResult) -> Any:
    """Return the message or the text of a model's response, None if there is none."""
    first = next((each for group in response.generations for each in group), None)
    return getattr(first, "message", None) or getattr(first, "text", None)


def _generations(group: Sequence[Generation]) -> list[dict[str, Any]]:
    return [_generation(each) for each in group]


def _generation(generation: Any) -> dict[str, Any]:
    message = getattr(generation, "message", None)
    fields = {"text": generation.text, "generation_info": generation.generation_info}
    if isinstance(message, BaseMessage):
        fields["message"] = {"id": [type(message).__name__], "kwargs": message.__dict__}
    return fields


def _function_call(outputs: Any) -> Iterable[tuple[str, Any]]:
    first = next(iter(outputs["generations"]), None)
    kwargs = first[0].get("message", {}).get("kwargs", {}) if first else {}
    return internals.function_calls(outputs) if "function_call" in kwargs.get("additional_kwargs", ()) else ()


def _cost(response: LLMResult) -> Iterable[tuple[str, float]]:
    """Return the cost of a call, which some providers report in dollars as part of the usage."""
    for message in messages_of(response) or ():
        attributes = message.response_metadata
        for usage in (attributes.get("token_usage"), attributes.get("usage")):
            cost = usage.get("cost") if isinstance(usage, Mapping) else None
            if isinstance(cost, (int, float)) and not isinstance(cost, bool):
                yield "llm.cost.total", cost


def _json(value: Any) -> str:
    return safe_json(value)
