"""What is content, and may be kept back as a whole."""

from dataclasses import replace

from telemetry.otlp import Attributes, Span

_INPUTS = (
    "input.",
    "langfuse.observation.input",
    "langfuse.trace.input",
    "llm.input_messages",
    "llm.prompts",
    "llm.prompt_template",
    "gen_ai.input",
    "gen_ai.prompt",
    "gen_ai.system_instructions",
    "embedding.embeddings",
    "tool.parameters",
)
_OUTPUTS = (
    "output.",
    "langfuse.observation.output",
    "langfuse.trace.output",
    "llm.output_messages",
    "gen_ai.output",
    "gen_ai.completion",
    "retrieval.documents",
    "reranker.output_documents",
)
# What a trace is found by, what was called and what came of it; never what was said.
_METADATA = {
    "session.id",
    "user.id",
    "cancelled",
    "error.type",
    "exception.type",
    "gen_ai.operation.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.provider.name",
    "http.request.method",
    "http.route",
    "langfuse.environment",
    "langfuse.observation.completion_start_time",
    "langfuse.observation.cost_details",
    "langfuse.observation.level",
    "langfuse.observation.type",
    "langfuse.release",
    "langfuse.trace.name",
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


def hide(attributes: Attributes, *, inputs: bool, outputs: bool) -> Attributes:
    """Return the attributes without what went in, or came out, or both."""
    hidden = (*(_INPUTS if inputs else ()), *(_OUTPUTS if outputs else ()))
    return {key: value for key, value in attributes.items() if not key.startswith(hidden)} if hidden else attributes


def metadata_only(span: Span) -> Span:
    """Return the span without anything that somebody said, wrote or was told."""
    attributes = {key: value for key, value in span.attributes.items() if key in _METADATA or _is_number(value)}
    kind = attributes.get("exception.type")
    message = str(kind).rpartition(".")[2] if kind and span.status == "ERROR" else ""
    if message:
        attributes["langfuse.observation.status_message"] = message
    return replace(
        span,
        name=span.name if span.kind != "CLIENT" else str(attributes.get("http.request.method", span.name)),
        attributes=attributes,
        message=message,
        events=[replace(event, attributes={}) for event in span.events],
        links=[replace(link, attributes={}) for link in span.links],
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float))
