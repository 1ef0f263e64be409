"""The format of OpenTelemetry's GenAI conventions, which most backends read without an adapter.

A span of an operation that they know (a call of a model, a tool, a retriever, an agent, a graph) has its content under
their names alone; that of any other span, and what they have no name for, keeps the names that it has. Messages,
definitions, arguments and results are JSON, because many backends take no nested values.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from telemetry.export.formats.error import exception_type, make_error_readable
from telemetry.export.formats.genai_messages import GenaiMessages
from telemetry.export.formats.langfuse import (
    FILTERABLE,
    INPUT,
    KIND,
    METADATA,
    OUTPUT,
    is_parameter,
    model_input,
    model_output,
    run_content,
    tool_content,
    tool_definitions,
    with_question,
)
from telemetry.export.formats.marks import MARKS, RECORDERS
from telemetry.export.formats.openinference import nanoseconds, with_readable_names
from telemetry.export.otlp import Attributes, Span
from telemetry.export.truncate import SHORTENED
from telemetry.json_text import dump, parse
from telemetry.messages_json import MessagesJson

OPERATION = "gen_ai.operation.name"
_INPUT_MESSAGES, _OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"
OPERATIONS = {
    "AGENT": "invoke_agent",
    "EMBEDDING": "embeddings",
    "LLM": "chat",
    "RETRIEVER": "retrieval",
    "TOOL": "execute_tool",
}
_CALLS = ("chat", "text_completion", "generate_content", "embeddings", "retrieval")
# What follows the operation in a span's name.
_NAMED_BY = {
    "execute_tool": "gen_ai.tool.name",
    "invoke_agent": "gen_ai.agent.name",
    "invoke_workflow": "gen_ai.agent.name",
    "retrieval": "gen_ai.data_source.id",
    **dict.fromkeys(("chat", "text_completion", "generate_content", "embeddings"), "gen_ai.request.model"),
}

# The conventions' names of providers, by those of OpenInference and of LangChain, which are the same for all others.
_PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
    "az.ai.inference": "azure.ai.inference",
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.inference",
    "azure_ai": "azure.ai.inference",
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gen_ai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
# What nobody has said, as `error.type` writes it, and as a reason why an answer ended.
_OTHER = "_OTHER"
_UNKNOWN = "unknown"

_TOKENS = "llm.token_count."
_USAGE = {
    "prompt": "input_tokens",
    "completion": "output_tokens",
    "prompt_details.cache_read": "cache_read.input_tokens",
    "prompt_details.cache_write": "cache_write.input_tokens",
    "prompt_details.audio": "audio.input_tokens",
    "completion_details.reasoning": "reasoning.output_tokens",
    "completion_details.audio": "audio.output_tokens",
}
# Former names, in spans of frameworks that follow the conventions themselves.
_FORMER = {
    "gen_ai.usage.prompt_tokens": "gen_ai.usage.input_tokens",
    "gen_ai.usage.completion_tokens": "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "gen_ai.usage.cache_write.input_tokens",
}


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _double(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _texts(value: Any) -> list[str] | None:
    found = [value] if isinstance(value, str) else value
    return found if isinstance(found, list) and found and all(isinstance(each, str) for each in found) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _true(value: Any) -> bool | None:
    return True if value is True else None


def _several(value: Any) -> int | None:
    count = _integer(value)
    return None if count == 1 else count


def _output_type(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) and value.keys() == {"type"} else None
    return {"json_object": "json", "text": "text"}.get(str(kind))


def _effort(value: Any) -> str | None:
    return _string(value.get("effort")) if isinstance(value, dict) and value.keys() == {"effort"} else None


_REQUEST = "gen_ai.request."
# By their names in the providers' interfaces. A parameter of another type than the conventions' keeps its own name.
_PARAMETERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "dimensions": ("gen_ai.embeddings.dimension.count", _integer),
    "encoding_format": (_REQUEST + "encoding_formats", _texts),
    "frequency_penalty": (_REQUEST + "frequency_penalty", _double),
    "max_completion_tokens": (_REQUEST + "max_tokens", _integer),
    "max_output_tokens": (_REQUEST + "max_tokens", _integer),
    "max_tokens": (_REQUEST + "max_tokens", _integer),
    "max_tokens_to_sample": (_REQUEST + "max_tokens", _integer),
    "n": (_REQUEST + "choice.count", _several),
    "presence_penalty": (_REQUEST + "presence_penalty", _double),
    "previous_response_id": (_REQUEST + "previous_response.id", _string),
    "reasoning": (_REQUEST + "reasoning.level", _effort),
    "reasoning_effort": (_REQUEST + "reasoning.level", _string),
    "response_format": ("gen_ai.output.type", _output_type),
    "seed": (_REQUEST + "seed", _integer),
    "stop": (_REQUEST + "stop_sequences", _texts),
    "stop_sequences": (_REQUEST + "stop_sequences", _texts),
    "stream": (_REQUEST + "stream", _true),
    "temperature": (_REQUEST + "temperature", _double),
    "top_k": (_REQUEST + "top_k", _integer),
    "top_p": (_REQUEST + "top_p", _double),
}
# What a request holds beside the conversation, in the words of several providers.
_INSTRUCTIONS = ("instructions", "system", "system_instruction")

_DOCUMENT = re.compile(r"retrieval\.documents\.(\d+)\.document\.(id|score|content|metadata)")
_TITLE, _TAGS, _TRACE_METADATA = "langfuse.trace.name", "langfuse.trace.tags", "langfuse.trace.metadata."
# Nothing else of Langfuse's: its other attributes may be content, which is hidden by its key.
_ABOUT = (_TITLE, _TAGS, _TRACE_METADATA, METADATA)
_NODE = ("langgraph_node", "langgraph_step")
# Under names of the conventions, as `session.id`, or of the whole content.
_SAID_ELSEWHERE = frozenset(
    {
        *(_TITLE, _TAGS, f"{_TRACE_METADATA}agent", f"{_TRACE_METADATA}thread"),
        *(METADATA + name for name in FILTERABLE),
    }
)
_PROMPT = "langfuse.observation.prompt."
_ANSWER_BEGAN = "langfuse.observation.completion_start_time"
# Written under other names, or on no span.
_WRITTEN = frozenset(
    {
        *("input.value", "output.value", "input.mime_type", "output.mime_type", INPUT, OUTPUT),
        *("metadata", "agent.name", "tag.tags", _ANSWER_BEGAN, f"{_PROMPT}name", f"{_PROMPT}version"),
        *MARKS,
    }
)
_WRITTEN_OF_FRAMEWORKS = frozenset({"metadata", "tag.tags", *MARKS})
_WRITTEN_OF = {
    "LLM": _WRITTEN
    | {"llm.model_name", "llm.provider", "llm.system", "llm.finish_reason", "llm.invocation_parameters", SHORTENED},
    "EMBEDDING": _WRITTEN | {"llm.provider", "llm.system", "embedding.model_name", "embedding.invocation_parameters"},
    "TOOL": _WRITTEN | {"tool.name", "tool.description", "tool.id", "tool_call.id"},
}
_WRITTEN_PARTS = ("llm.input_messages.", "llm.output_messages.", "llm.tools.", "llm.prompts", "llm.function_call")
_WRITTEN_PARTS_OF = {
    **dict.fromkeys(("AGENT", "EMBEDDING", "LLM"), (*_WRITTEN_PARTS, _TOKENS)),
    "RETRIEVER": (*_WRITTEN_PARTS, "retrieval.documents."),
}


class GenaiFormat:
    """Converts spans to the attributes of the GenAI conventions; it caches the messages that it has converted."""

    def __init__(self, max_value_bytes: int = 0) -> None:
        self._messages = GenaiMessages(max_value_bytes)

    def __call__(self, span: Span) -> Span:
        """Return the span in the conventions' attributes; nothing that they have a name for has another one as well."""
        if OPERATION in span.attributes and KIND not in span.attributes:
            return _completed(make_error_readable(span))
        span = with_question(with_readable_names(_with_input(span)))
        attributes = span.attributes
        kind = str(attributes.get(KIND, ""))
        metadata = parse(attributes.get("metadata"))
        metadata = metadata if isinstance(metadata, dict) else {}
        operation = _operation(span, kind, metadata)
        parts = _WRITTEN_PARTS_OF.get(kind, _WRITTEN_PARTS)
        kept, about = _sorted_out(attributes, _WRITTEN_OF.get(kind, _WRITTEN), parts)
        found = _about_trace(attributes, about, metadata)
        if operation:
            found |= {OPERATION: operation, **_about_operation(span)}
        found |= self._content(span, operation)
        return span.but(attributes={**{key: value for key, value in found.items() if value is not None}, **kept})

    def _content(self, span: Span, operation: str | None) -> Attributes:
        match operation:
            case None:
                return _other(span)
            case "invoke_agent" | "invoke_workflow":
                return self._run(span)
            case "execute_tool":
                return _tool_call(span)
            case "retrieval":
                return _retrieval(span)
            case "embeddings":
                return _embeddings(span)
            case _:
                return self._model_call(span)

    def _model_call(self, span: Span) -> Attributes:
        attributes = span.attributes
        asked, answered = model_input(attributes, with_tools=False), model_output(attributes)
        parameters = _read_parameters(attributes.get("llm.invocation_parameters"))
        request, rest = _request(parameters)
        # Bytes are no message: they stay where redaction knows them as bytes.
        files = {key: text for key, text in (("input.value", asked), ("output.value", answered)) if _is_bytes(text)}
        messages, left_out = self._messages.conversation(asked) if asked and not _is_bytes(asked) else (None, 0)
        before = attributes.get(SHORTENED)
        return {
            **_models(attributes, parameters, answered=answered is not None),
            **request,
            **_response(span, reason := _finish_reason(span)),
            **_instructions(rest),
            "llm.invocation_parameters": dump(rest) if rest else None,
            SHORTENED: left_out + (before if isinstance(before, int) else 0) or None,
            _INPUT_MESSAGES: messages,
            _OUTPUT_MESSAGES: (
                self._messages.answers(answered, reason or _UNKNOWN) if answered and not _is_bytes(answered) else None
            ),
            "gen_ai.tool.definitions": self._messages.tools([dump(each) for each in tool_definitions(attributes)]),
            **files,
        }

    def _run(self, span: Span) -> Attributes:
        """Return what a run was asked and what it answered; of a turn also where the root of its trace has that."""
        is_turn = span.scope == "telemetry"
        content = (
            (span.attributes.get("input.value"), span.attributes.get("output.value"))
            if is_turn
            else run_content(span)[:2]
        )
        reason = _finish_reason(span) or "stop"
        keys: tuple[tuple[str, str, Callable[[Any], MessagesJson | None]], ...] = (
            (_INPUT_MESSAGES, "input.value", lambda text: self._messages.messages(text, "user")),
            (_OUTPUT_MESSAGES, "output.value", lambda text: self._messages.answers(text, reason)),
        )
        said: Attributes = {}
        for text, (key, own, converted) in zip(content, keys, strict=True):
            listed = parse(text)
            is_said = not _is_bytes(text) and (not isinstance(listed, (dict, list)) or _is_conversation(listed))
            said[key if is_said else own] = converted(text) if is_said and text else text
        return {**said, "gen_ai.agent.name": _agent(span)}


def name_by_conventions(span: Span) -> Span:
    """Return the span with the name and the kind that the conventions recommend.

    It runs after redaction, so that the name is made of what is sent.
    """
    operation = span.attributes.get(OPERATION)
    if not isinstance(operation, str) or operation not in _NAMED_BY:
        return span
    name = " ".join(filter(None, (operation, str(span.attributes.get(_NAMED_BY[operation]) or ""))))
    return span.but(name=name, kind="CLIENT" if operation in _CALLS else span.kind)


def _with_input(span: Span) -> Span:
    """Return a span whose program has written its content under Langfuse's names with it under OpenInference's."""
    attributes = span.attributes
    pairs = (("input.value", INPUT), ("output.value", OUTPUT))
    found = {key: attributes[given] for key, given in pairs if given in attributes and key not in attributes}
    return span.but(attributes={**attributes, **found}) if found else span


def _completed(span: Span) -> Span:
    """Return a span that a framework has written by the conventions, with what it lacks."""
    attributes = span.attributes
    own, about = _sorted_out(attributes, _WRITTEN_OF_FRAMEWORKS, ())
    kept = {_FORMER.get(key, key): value for key, value in own.items()}
    if attributes.get("gen_ai.system"):
        kept.setdefault("gen_ai.provider.name", provider_name(attributes))
    metadata = parse(attributes.get("metadata"))
    found = {
        **_about_trace(attributes, about, metadata if isinstance(metadata, dict) else {}),
        **_about_operation(span),
    }
    return span.but(attributes={**{key: value for key, value in found.items() if value is not None}, **kept})


def _operation(span: Span, kind: str, metadata: Mapping[str, Any]) -> str | None:
    if kind == "CHAIN":
        # A graph that is a node of another one is part of how that one works.
        is_graph = metadata.get("ls_integration") == "langgraph" and "langgraph_node" not in metadata
        return "invoke_workflow" if is_graph and span.scope in RECORDERS else None
    if kind == "LLM" and any(key.startswith("llm.prompts") for key in span.attributes):
        return "text_completion"
    return OPERATIONS.get(kind)


def _sorted_out(attributes: Attributes, written: Set[str], parts: tuple[str, ...]) -> tuple[Attributes, Attributes]:
    """Return the attributes that keep their names, and those that are of the trace or that one can filter by."""
    kept: Attributes = {}
    about: Attributes = {}
    for key, value in attributes.items():
        if key in written:
            continue
        if key.startswith(_ABOUT):
            about[key] = value
        elif not key.startswith(parts):
            kept[key] = value
    return kept, about


def _about_trace(attributes: Attributes, about: Attributes, metadata: Mapping[str, Any]) -> Attributes:
    """Return what is said of the trace: tags, and the fields to find it by in one attribute."""
    fields = {key: metadata[key] for key in _NODE if key in metadata}
    for key, value in about.items():
        if key not in _SAID_ELSEWHERE:
            name = key.removeprefix(_TRACE_METADATA).removeprefix(METADATA)
            fields[name] = value
    tags = about.get(_TAGS)
    listed = tags if isinstance(tags, (list, tuple)) else [tags] if tags else []
    own = [tag for tag in listed if tag != about.get(_TITLE)] or attributes.get("tag.tags")
    return {"tag.tags": own or None, "metadata": dump(fields) if fields else None}


def _about_operation(span: Span) -> Attributes:
    return {
        "gen_ai.conversation.id": span.attributes.get("session.id"),
        "error.type": _error_type(span),
    }


def _error_type(span: Span) -> str | None:
    if span.status != "ERROR":
        return None
    known = span.attributes.get("error.type") or exception_type(span)
    return str(known) if known else _OTHER


def _agent(span: Span) -> str | None:
    if name := span.attributes.get("agent.name"):
        return str(name)
    return _string(span.attributes.get(_TITLE)) if span.scope == "telemetry" else span.name


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes)


def _is_conversation(value: Any) -> bool:
    listed = value if isinstance(value, list) else [value]
    return bool(listed) and all(isinstance(each, dict) and "role" in each for each in listed)


def _other(span: Span) -> Attributes:
    """Return the content of a span that the conventions do not know, under its own names."""
    if KIND not in span.attributes:
        return {key: span.attributes.get(key) for key in ("input.value", "output.value")}
    return dict(zip(("input.value", "output.value"), run_content(span)[:2], strict=True))


def _tool_call(span: Span) -> Attributes:
    attributes = span.attributes
    arguments, result, message = tool_content(span)
    return {
        "gen_ai.tool.name": attributes.get("tool.name") or span.name,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.description": attributes.get("tool.description"),
        "gen_ai.tool.call.id": message.get("tool_call_id")
        or attributes.get("tool_call.id")
        or attributes.get("tool.id"),
        "gen_ai.tool.call.arguments": arguments,
        "gen_ai.tool.call.result": result,
        "gen_ai.agent.name": attributes.get("agent.name") or attributes.get(_TITLE),
    }


def _retrieval(span: Span) -> Attributes:
    attributes = span.attributes
    query, found, _ = run_content(span)
    documents: dict[int, Attributes] = {}
    for key, value in attributes.items():
        if field := _DOCUMENT.fullmatch(key):
            documents.setdefault(int(field[1]), {})[field[2]] = value
    listed = [_document(each) for _, each in sorted(documents.items())]
    return {
        "gen_ai.retrieval.query.text": query,
        "gen_ai.retrieval.documents": dump(listed) if listed else None,
        "output.value": None if listed else found,
    }


def _document(fields: Attributes) -> Attributes:
    metadata = parse(fields.get("metadata"))
    known = {"id": fields.get("id"), "score": fields.get("score"), "content": fields.get("content")}
    return {
        **{key: value if key == "score" else dump(value) for key, value in known.items() if value is not None},
        **({"metadata": metadata} if metadata else {}),
    }


def _embeddings(span: Span) -> Attributes:
    attributes = span.attributes
    given, rest = _request(_read_parameters(attributes.get("embedding.invocation_parameters")))
    text, answer, _ = run_content(span)
    model = attributes.get("embedding.model_name")
    return {
        "gen_ai.provider.name": provider_name(attributes),
        "gen_ai.request.model": model,
        **given,
        **_tokens(attributes),
        "embedding.invocation_parameters": dump(rest) if rest else None,
        "input.value": text,
        "output.value": answer,
    }


def provider_name(attributes: Mapping[str, Any]) -> str:
    """Return the provider of a model call by the name that the conventions have for it; `_OTHER` if nothing says it.

    Example:
        >>> provider_name({"llm.provider": "aws"})
        'aws.bedrock'
    """
    provider, system = attributes.get("llm.provider"), attributes.get("llm.system")
    known = attributes.get("gen_ai.provider.name") or provider or system or attributes.get("gen_ai.system")
    name = str(known or _OTHER).lower()
    if name in ("azure", "google") and system in ("openai", "vertexai"):
        # OpenInference says `vertexai` of all of Google's models.
        return "azure.ai.openai" if system == "openai" else "gcp.gen_ai"
    return _PROVIDERS.get(name, name if name != _OTHER.lower() else _OTHER)


def _models(attributes: Attributes, parameters: Attributes, *, answered: bool) -> Attributes:
    known = attributes.get("llm.model_name")
    asked = parameters.get("model") or parameters.get("model_name")
    return {
        "gen_ai.provider.name": provider_name(attributes),
        "gen_ai.request.model": asked if answered and isinstance(asked, str) else known,
        "gen_ai.response.model": known if answered else None,
    }


def _read_parameters(given: Any) -> Attributes:
    known = parse(given)
    return known if isinstance(known, dict) else {}


def _request(parameters: Attributes) -> tuple[Attributes, Attributes]:
    """Return the parameters that the conventions name, and the others."""
    named: Attributes = {}
    rest: Attributes = {}
    for name, value in parameters.items():
        if not is_parameter(name, value):
            continue
        key, typed = _PARAMETERS.get(name, ("", _string))
        found = typed(value) if key else None
        if found is not None:
            named[key] = found
        elif not (name == "n" and value == 1) and not (name == "stream" and value is False):
            rest[name] = value
    return named, rest


def _instructions(rest: Attributes) -> Attributes:
    """Return the instructions that a request holds beside its messages, and take them out of its parameters."""
    for name in _INSTRUCTIONS:
        text = rest.get(name)
        if isinstance(text, str) and text:
            del rest[name]
            return {"gen_ai.system_instructions": dump([{"type": "text", "content": text}])}
    return {}


def _finish_reason(span: Span) -> str | None:
    """Return why a model or an agent stopped, as far as that is known."""
    attributes = span.attributes
    reason = attributes.get("llm.finish_reason")
    if reason is not None:
        return str(reason)
    return "error" if span.status == "ERROR" or attributes.get("cancelled") else None


def _response(span: Span, reason: str | None) -> Attributes:
    attributes = span.attributes
    began = nanoseconds(attributes.get(_ANSWER_BEGAN))
    version = attributes.get(f"{_PROMPT}version")
    return {
        "gen_ai.response.finish_reasons": None if reason is None else [reason],
        "gen_ai.response.time_to_first_chunk": None if began is None else max(began - span.start, 0) / 1e9,
        "gen_ai.prompt.name": attributes.get(f"{_PROMPT}name"),
        "gen_ai.prompt.version": None if version is None else str(version),
        **({} if began is None else {_REQUEST + "stream": True}),
        **_tokens(attributes),
    }


def _tokens(attributes: Attributes) -> Attributes:
    counts: Iterable[tuple[str, Any]] = ((name, attributes.get(_TOKENS + key)) for key, name in _USAGE.items())
    return {f"gen_ai.usage.{name}": count for name, count in counts if isinstance(count, int)}
