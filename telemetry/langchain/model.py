"""What OpenInference's conventions have to say of a model call, without turning its messages into dicts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import Generation, LLMResult
from openinference.instrumentation.langchain import _tracer as conventions
from opentelemetry.util.types import AttributeValue

from telemetry.json_text import written

Attributes = dict[str, AttributeValue]
_DEFINITIONS = ("tools", "functions")


def asked(extra: Mapping[str, Any]) -> Attributes:
    """Return what is known of a call when it begins: its parameters, its tools, who serves it."""
    parameters: Mapping[str, Any] = extra["invocation_params"]
    plain = {key: value for key, value in parameters.items() if key not in _DEFINITIONS}
    tools = parameters.get("tools") or ()
    about: Attributes = {f"llm.tools.{at}.tool.json_schema": _json(tool) for at, tool in enumerate(tools)}
    if parameters:
        about["llm.invocation_parameters"] = _json(plain)
    about.update(conventions._llm_provider(extra))  # noqa: SLF001 - its words for providers, which we would only repeat
    about.update(conventions._llm_system(extra))  # noqa: SLF001 - see above
    about.update(conventions._model_name(None, extra))  # noqa: SLF001 - see above
    return about


def answered(response: LLMResult, extra: Mapping[str, Any]) -> Attributes:
    """Return what is known of a call when it ends: its answer, its usage, the model that gave it."""
    outputs = {"llm_output": response.llm_output, "generations": [_told(group) for group in response.generations]}
    known = (
        *conventions._output_messages(outputs),  # noqa: SLF001 - see asked
        *conventions._model_name(outputs, extra),  # noqa: SLF001
        *conventions._token_counts(outputs),  # noqa: SLF001
        *conventions._finish_reason(outputs),  # noqa: SLF001
        *_function_call(outputs),
        *_cost(response),
    )
    return dict(flat(known))


def flat(told: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, AttributeValue]]:
    """Yield attributes of one level: the fields of a field, and those of the items of a list, under its name.

    OpenInference's own asks the classes of `typing`, which takes three times as long.
    """
    for key, value in told:
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", each) for name, each in flat(value.items()))
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for at, item in enumerate(value):
                yield from ((f"{key}.{at}.{name}", each) for name, each in flat(item.items()))
        elif value is not None:
            yield key, value.value if isinstance(value, Enum) else value


def messages_in(response: LLMResult) -> list[BaseMessage] | None:
    """Return the messages that a model answered with, None where any of it is no message."""
    said = [getattr(each, "message", None) for group in response.generations for each in group]
    messages = [message for message in said if isinstance(message, BaseMessage)]
    return messages if messages and len(messages) == len(said) else None


def _told(group: Sequence[Generation]) -> list[dict[str, Any]]:
    return [_generation(each) for each in group]


def _generation(generation: Any) -> dict[str, Any]:
    message = getattr(generation, "message", None)
    told = {"text": generation.text, "generation_info": generation.generation_info}
    if isinstance(message, BaseMessage):
        told["message"] = {"id": [type(message).__name__], "kwargs": message.__dict__}
    return told


def _function_call(outputs: Any) -> Iterable[tuple[str, Any]]:
    first = next(iter(outputs["generations"]), None)
    kwargs = first[0].get("message", {}).get("kwargs", {}) if first else {}
    return conventions._function_calls(outputs) if "function_call" in kwargs.get("additional_kwargs", ()) else ()  # noqa: SLF001 - see asked


def _cost(response: LLMResult) -> Iterable[tuple[str, float]]:
    """Some providers report what a call cost, in dollars, within its usage."""
    for message in messages_in(response) or ():
        about = message.response_metadata
        for usage in (about.get("token_usage"), about.get("usage")):
            cost = usage.get("cost") if isinstance(usage, Mapping) else None
            if isinstance(cost, (int, float)) and not isinstance(cost, bool):
                yield "llm.cost.total", cost


def _json(value: Any) -> str:
    return written(value).decode()
