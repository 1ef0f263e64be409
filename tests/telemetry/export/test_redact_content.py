"""Where content is to stay, only what is listed leaves."""

from typing import Any

import pytest
from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Status, StatusCode

from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare
from telemetry.settings import Settings
from tests.telemetry.planted import finished

# Keys of OpenInference, of the GenAI conventions and of others that hold what was said, each once for in and out.
INPUTS = (
    "input.value",
    "llm.input_messages.0.message.content",
    "llm.invocation_parameters",
    "llm.prompts.0.prompt.text",
    "llm.prompt_template.template",
    "llm.tools.0.tool.json_schema",
    "gen_ai.input.messages",
    "gen_ai.prompt.0.content",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.definitions",
    "embedding.text",
    "embedding.embeddings.0.embedding.text",
    "reranker.query",
    "reranker.input_documents.0.document.content",
    "tool.parameters",
    "langfuse.observation.input",
    "langfuse.trace.input",
    "traceloop.entity.input",
)
OUTPUTS = (
    "output.value",
    "llm.output_messages.0.message.content",
    "gen_ai.output.messages",
    "gen_ai.completion.0.content",
    "gen_ai.tool.call.result",
    "retrieval.documents.0.document.content",
    "reranker.output_documents.0.document.content",
    "langfuse.observation.output",
    "langfuse.trace.output",
    "traceloop.entity.output",
)
# What somebody's convention of tomorrow may be called.
UNKNOWN = ("gen_ai.thoughts", "llm.reasoning", "tool.result", "message.content", "document.content")
METADATA = {
    "openinference.span.kind": "CHAIN",
    "session.id": "t-1",
    "llm.model_name": "demo",
    "llm.token_count.prompt": 12,
    "gen_ai.tool.name": "shell",
}
EVENTS = (
    Event("gen_ai.user.message", {"content": "went in"}, 1),
    Event("gen_ai.choice", {"message": "came out"}, 1),
    Event("cache miss", {"input.value": "went in", "output.value": "came out"}, 1),
)


def sent(shape: str, **environment: Any) -> otlp.Span:
    """A span with content under every key, as it arrives with these settings."""
    content = {
        **dict.fromkeys(INPUTS, "went in"),
        **dict.fromkeys(OUTPUTS, "came out"),
        **dict.fromkeys(UNKNOWN, "x y"),
    }
    stages = build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape, **environment}))
    (arrived,) = otlp.decode(
        prepare(finished(attributes={**METADATA, **content}, events=EVENTS), stages), "application/x-protobuf"
    )
    assert METADATA.items() <= arrived.attributes.items()
    return arrived


@pytest.mark.parametrize("shape", ["langfuse", "openinference", "genai", "all"])
@pytest.mark.parametrize(
    ("hidden", "gone", "stays"), [("INPUTS", "went in", "came out"), ("OUTPUTS", "came out", "went in")]
)
def test_what_is_hidden_leaves_under_no_key(shape: str, hidden: str, gone: str, stays: str) -> None:
    """What goes in, or comes out, leaves under none of the keys of any convention, in attributes and events."""
    arrived = sent(shape, **{f"OPENINFERENCE_HIDE_{hidden}": "true"})

    assert gone not in str(arrived)
    assert "x y" not in str(arrived)
    assert stays in str(arrived.attributes)
    assert stays in str(arrived.events)


@pytest.mark.parametrize("shape", ["langfuse", "openinference", "genai", "all"])
def test_of_metadata_only_what_is_listed_leaves(shape: str) -> None:
    """Under whatever key it stands, content does not leave; what was called, and its numbers, do."""
    arrived = sent(shape, TELEMETRY_CONTENT="metadata-only")

    assert [words for words in ("went in", "came out", "x y") if words in str(arrived)] == []


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("chat turn", True),
        ("POST /{agent}/stream", True),
        ("my_module.run", True),
        ("HTTP GET /{agent}/history of agent-api", True),
        ("What is my mother's name?", False),
        ("the doctor says that it is nothing", False),
        ("今天天气", False),
        ("a word " * 20, False),
    ],
)
def test_a_name_that_is_a_sentence_is_content(name: str, leaves: bool) -> None:
    """The name of a function or a route leaves with the metadata, a question that became a name does not."""
    stages = build_stages(Settings.model_validate({"TELEMETRY_CONTENT": "metadata-only"}))
    title = {"langfuse.trace.name": name}
    span = finished(name, Status(StatusCode.OK), attributes=title, events=(Event(name, {}, 1),))
    (arrived,) = otlp.decode(prepare(span, stages), "application/x-protobuf")

    names = (arrived.name, arrived.events[0].name, arrived.attributes["langfuse.trace.name"])
    assert [each == name for each in names] == [leaves] * 3
