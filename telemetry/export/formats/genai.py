"""Read the attributes of OpenTelemetry's GenAI conventions: what they mean in OpenInference's."""

from collections.abc import Iterator
from typing import Any

from telemetry.export.formats.messages import Message, openai_call, role_of
from telemetry.export.otlp import Attributes
from telemetry.json_text import dump, parse

KIND = "openinference.span.kind"
MODEL_OPERATIONS = frozenset({"chat", "text_completion", "generate_content"})
KINDS = {
    **dict.fromkeys(MODEL_OPERATIONS, "LLM"),
    "embeddings": "EMBEDDING",
    "execute_tool": "TOOL",
    "retrieval": "RETRIEVER",
    "create_agent": "AGENT",
    "invoke_agent": "AGENT",
    "invoke_workflow": "CHAIN",
}
_INPUT, _OUTPUT, _SYSTEM = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
_ALL, _TOOLS = "pydantic_ai.all_messages", "gen_ai.tool.definitions"
_USAGE = "gen_ai.usage."
# Each in the conventions' present form, then in former ones and in those of frameworks that use their own.
_NAMES = {
    "llm.model_name": ("gen_ai.response.model", "gen_ai.request.model"),
    "llm.provider": ("gen_ai.provider.name", "gen_ai.system"),
    "llm.token_count.prompt": (_USAGE + "input_tokens", _USAGE + "prompt_tokens"),
    "llm.token_count.completion": (_USAGE + "output_tokens", _USAGE + "completion_tokens"),
    "llm.token_count.prompt_details.cache_read": (
        _USAGE + "cache_read.input_tokens",
        _USAGE + "details.cache_read_tokens",
    ),
    "llm.token_count.prompt_details.cache_write": (
        _USAGE + "cache_creation.input_tokens",
        _USAGE + "details.cache_write_tokens",
    ),
    "llm.token_count.completion_details.reasoning": (
        _USAGE + "reasoning.output_tokens",
        _USAGE + "details.reasoning_tokens",
    ),
    "llm.cost.total": ("operation.cost",),
}
_OF_TOOL = {
    "tool.name": ("gen_ai.tool.name",),
    "tool.description": ("gen_ai.tool.description",),
    "input.value": ("gen_ai.tool.call.arguments", "tool_arguments"),
    "output.value": ("gen_ai.tool.call.result", "tool_response"),
}
_OF_ANY = {"agent.name": ("gen_ai.agent.name",), "session.id": ("gen_ai.conversation.id",)}
_PARAMETERS = "gen_ai.request."
_NO_PARAMETERS = {"model", "stream"}
# What stands elsewhere once it is read; the rest are figures and ids.
CONTENT = frozenset(
    {
        *(_INPUT, _OUTPUT, _SYSTEM, _ALL, _TOOLS, "final_result", "model_request_parameters", "logfire.json_schema"),
        *(*_OF_TOOL["input.value"], *_OF_TOOL["output.value"]),
    }
)


def genai(attributes: Attributes) -> Attributes:
    """Return the attributes with what GenAI's say under OpenInference's names as well, unless they have those."""
    kind = KINDS.get(str(attributes.get("gen_ai.operation.name")))
    if kind is None or KIND in attributes:
        return attributes
    shape = {"LLM": _model_call, "EMBEDDING": _model_call, "TOOL": _tool_call}.get(kind, _run)
    read = {KIND: kind, **_named(attributes, _OF_ANY), **shape(attributes)}
    return {**{key: value for key, value in read.items() if value is not None}, **attributes}


def _model_call(attributes: Attributes) -> Attributes:
    parameters = {
        name: value
        for key, value in attributes.items()
        if key.startswith(_PARAMETERS) and (name := key.removeprefix(_PARAMETERS)) not in _NO_PARAMETERS
    }
    reasons = attributes.get("gen_ai.response.finish_reasons")
    counts = _named(attributes, _NAMES)
    sides = [counts.get(f"llm.token_count.{name}") for name in ("prompt", "completion")]
    known = [count for count in sides if isinstance(count, int)]
    asked, said = _conversation(attributes, _INPUT), _messages(attributes.get(_OUTPUT))
    return {
        **counts,
        "llm.token_count.total": sum(known) if len(known) == len(sides) else None,
        "llm.invocation_parameters": dump(parameters) if parameters else None,
        "llm.finish_reason": reasons[0] if isinstance(reasons, (list, tuple)) and reasons else None,
        "input.value": dump({"messages": asked}) if asked else None,
        "output.value": dump(said[0] if len(said) == 1 else said) if said else None,
        **_tools(attributes.get(_TOOLS)),
    }


def _tool_call(attributes: Attributes) -> Attributes:
    return _named(attributes, _OF_TOOL)


def _run(attributes: Attributes) -> Attributes:
    """Return what was asked and what was answered, which are the last ones of their kind."""
    every = _conversation(attributes, _ALL if _ALL in attributes else _INPUT)
    asked = [each["content"] for each in every if each["role"] == "user" and each["content"]]
    answers = _messages(attributes.get(_OUTPUT)) or (every if _ALL in attributes else [])
    said = [each["content"] for each in answers if each["role"] == "assistant" and each["content"]]
    return {
        "input.value": _text(asked[-1]) if asked else None,
        "output.value": attributes.get("final_result") or (_text(said[-1]) if said else None),
    }


def _named(attributes: Attributes, names: dict[str, tuple[str, ...]]) -> Attributes:
    found = {name: next((attributes[key] for key in keys if key in attributes), None) for name, keys in names.items()}
    return {
        name: value if isinstance(value, (int, float)) else dump(value)
        for name, value in found.items()
        if value is not None
    }


def _tools(given: Any) -> Attributes:
    listed = parse(given)
    tools = listed if isinstance(listed, list) else []
    return {f"llm.tools.{at}.tool.json_schema": dump(tool) for at, tool in enumerate(tools)}


def _conversation(attributes: Attributes, key: str) -> list[Message]:
    messages = _messages(attributes.get(key))
    system = _text([part.get("content") for part in _listed(attributes.get(_SYSTEM)) if isinstance(part, dict)])
    if system and not any(each["role"] == "system" for each in messages):
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _messages(given: Any) -> list[Message]:
    return [shaped for each in _listed(given) if isinstance(each, dict) for shaped in _shaped(each)]


def _listed(given: Any) -> list[Any]:
    found = parse(given) if isinstance(given, str) else given
    return list(found) if isinstance(found, (list, tuple)) else []


def _shaped(given: Message) -> Iterator[Message]:
    """Return a message of parts as OpenAI's: the result of each tool is a message of its own there."""
    parts = [part for part in given.get("parts") or () if isinstance(part, dict)]
    results = [part for part in parts if part.get("type") == "tool_call_response"]
    for part in results:
        result = part.get("response", part.get("result"))
        yield {"role": "tool", "tool_call_id": part.get("id"), "content": _text(result)}
    calls = [openai_call(part) for part in parts if part.get("type") == "tool_call"]
    thoughts = [part.get("content") for part in parts if part.get("type") in ("reasoning", "thinking")]
    content = [_content(part) for part in parts if part.get("type") not in _ELSEWHERE]
    if content or calls or thoughts or not results:
        texts = [part["text"] for part in content if part["type"] == "text"]
        shaped: Message = {
            "role": role_of(given) or "assistant",
            "content": "".join(texts) if len(texts) == len(content) else content,
        }
        if thoughts:
            shaped["reasoning_content"] = "\n".join(_text(thought) for thought in thoughts)
        yield {**shaped, "tool_calls": calls} if calls else shaped


_ELSEWHERE = ("tool_call", "tool_call_response", "reasoning", "thinking")


def _content(part: Message) -> Message:
    if part.get("type") == "text":
        return {"type": "text", "text": _text(part.get("content"))}
    address = part.get("uri") or part.get("url")
    if address and "image" in (part.get("modality"), str(part.get("type")).partition("-")[0]):
        return {"type": "image_url", "image_url": {"url": address}}
    return {**part, "type": str(part.get("type"))}


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return value if isinstance(value, str) else "" if value is None else dump(value)
