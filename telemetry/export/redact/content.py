"""Withhold content: lists of the keys that may be sent nevertheless."""

import re
from dataclasses import replace
from typing import Any

from telemetry.export.otlp import Attributes, Event, Span

# Keys under which instrumentors put content. A key that is in no list below counts as input and as output.
_NAMESPACES = (
    "ai.",
    "document.",
    "embedding.",
    "gen_ai.",
    "input.",
    "langfuse.observation.",
    "langfuse.trace.",
    "llm.",
    "message.",
    "output.",
    "prompt.",
    "reranker.",
    "retrieval.",
    "tool.",
    "tool_call.",
    "traceloop.",
)
_INPUTS = (
    "input.",
    "langfuse.observation.input",
    "langfuse.trace.input",
    "llm.input_messages",
    "llm.invocation_parameters",
    "llm.prompt",
    "llm.tools",
    "gen_ai.input",
    "gen_ai.prompt",
    "gen_ai.request.",
    "gen_ai.retrieval.query",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.definitions",
    "embedding.",
    "reranker.input_documents",
    "reranker.query",
    "tool.parameters",
)
_OUTPUTS = (
    "output.",
    "langfuse.observation.output",
    "langfuse.trace.output",
    "llm.output_messages",
    "gen_ai.output",
    "gen_ai.completion",
    "gen_ai.retrieval.documents",
    "gen_ai.tool.call.result",
    "retrieval.documents",
    "reranker.output_documents",
)
# Output events of the GenAI conventions; all their other events contain inputs.
_OUTPUT_EVENTS = ("gen_ai.choice", "gen_ai.content.completion", "gen_ai.assistant.message")
# Set by a program to filter spans by.
_FOUND_BY = ("langfuse.observation.metadata.", "langfuse.trace.metadata.")
_TITLE = "langfuse.trace.name"
# Names that programs give: of these, too, a sentence is content.
_TITLES = (_TITLE, "gen_ai.agent.name")
# Keys to find a trace by, what was called, and the outcome; never content.
_METADATA = {
    "session.id",
    "user.id",
    "cancelled",
    "error.type",
    "exception.type",
    "gen_ai.conversation.id",
    "gen_ai.operation.name",
    "gen_ai.output.type",
    "gen_ai.request.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.model",
    "gen_ai.provider.name",
    "gen_ai.system",
    "gen_ai.tool.name",
    "gen_ai.tool.type",
    "gen_ai.tool.call.id",
    "http.request.method",
    "http.route",
    "langfuse.environment",
    "langfuse.observation.completion_start_time",
    "langfuse.observation.cost_details",
    "langfuse.observation.level",
    "langfuse.observation.type",
    "langfuse.release",
    *_TITLES,
    "langfuse.trace.tags",
    "langfuse.version",
    "llm.finish_reason",
    "llm.model_name",
    "llm.provider",
    "llm.system",
    "network.protocol.version",
    "openinference.span.kind",
    "server.address",
    "stream.status",
    "tool.name",
    "turn.status",
    "url.scheme",
    *(f"langfuse.trace.metadata.{name}" for name in ("agent", "thread", "run", "resumes", "resumes_trace")),
    *(f"langfuse.observation.metadata.{name}" for name in ("langgraph_node", "finish_reason", "tool_call_id")),
}
# Keys that also stay if only inputs or outputs are hidden: error messages, and descriptions of tools.
_NO_CONTENT = _METADATA | {"langfuse.observation.status_message", "tool.description"}
# The name of a function, a route, an agent or a model, but not a sentence.
_WORD = r"[0-9A-Za-z_.:/{}<>()\[\]#+-]+"
_NAME = re.compile(rf"{_WORD}(?: {_WORD}){{0,4}}")
_MAX_NAME = 80


def hide(span: Span, *, inputs: bool, outputs: bool) -> Span:
    """Return the span without its inputs, its outputs, or both."""
    if not inputs and not outputs:
        return span

    def may_leave(key: str, value: Any) -> bool:
        if not key.startswith(_NAMESPACES) or key in _NO_CONTENT or key.startswith(_FOUND_BY) or _is_number(value):
            return True
        return (not inputs and key.startswith(_INPUTS)) or (not outputs and key.startswith(_OUTPUTS))

    def shown(attributes: Attributes) -> Attributes:
        return {key: value for key, value in attributes.items() if may_leave(key, value)}

    def without_content(event: Event) -> Event:
        is_hidden = outputs if event.name.startswith(_OUTPUT_EVENTS) else inputs
        is_content = event.name.startswith("gen_ai.") and is_hidden
        return replace(event, attributes={} if is_content else shown(event.attributes))

    return span.but(attributes=shown(span.attributes), events=[without_content(event) for event in span.events])


def metadata_only(span: Span) -> Span:
    """Return the span without any content."""
    attributes = {key: value for key, value in span.attributes.items() if key in _METADATA or _is_number(value)}
    kind = attributes.get("exception.type")
    message = str(kind).rpartition(".")[2] if kind and span.status == "ERROR" else ""
    if message:
        attributes["langfuse.observation.status_message"] = message
    attributes |= {key: checked_name(str(title)) for key in _TITLES if (title := attributes.get(key))}
    name = span.name if span.kind != "CLIENT" else str(attributes.get("http.request.method", span.name))
    return span.but(
        name=checked_name(name),
        attributes=attributes,
        message=message,
        events=[replace(event, name=checked_name(event.name), attributes={}) for event in span.events],
        links=[replace(link, attributes={}) for link in span.links],
        scope_attributes={},
    )


def checked_name(name: str) -> str:
    """Return a name that somebody gave to something; one that is a sentence is withheld."""
    return name if len(name) <= _MAX_NAME and _NAME.fullmatch(name) else "withheld"


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float))
