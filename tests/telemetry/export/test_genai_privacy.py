"""What must not leave does not leave in the GenAI conventions' attributes either."""

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Status, StatusCode

from telemetry.export import otlp
from telemetry.export.stages import STUB, build_stages, prepare
from telemetry.messages_json import MessagesJson
from telemetry.settings import Settings
from tests.telemetry.export.genai_rules import ATTRIBUTES
from tests.telemetry.planted import TOKEN, finished, with_changes

SAID = f"it is {TOKEN}, as before"
HIDDEN = {"OPENINFERENCE_HIDE_INPUTS": "true", "OPENINFERENCE_HIDE_OUTPUTS": "true"}
MODEL = {"llm.model_name": "m", "output.value": "x"}


def parameters(**given: Any) -> dict[str, Any]:
    return {**MODEL, "llm.invocation_parameters": json.dumps(given)}


def places(said: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """By each attribute: the kind of a span, and what an instrumentor or a turn has written that it is made of."""
    message = json.dumps({"role": "user", "content": said})
    document = "retrieval.documents.0.document"
    return {
        "gen_ai.agent.name": ("AGENT", {"agent.name": said}),
        "gen_ai.conversation.id": ("AGENT", {"session.id": said}),
        "gen_ai.input.messages": ("LLM", {"input.value": f"[{message}]"}),
        "gen_ai.output.messages": ("LLM", {"output.value": said}),
        "gen_ai.prompt.name": ("LLM", {"langfuse.observation.prompt.name": said}),
        "gen_ai.provider.name": ("LLM", {"llm.provider": said}),
        "gen_ai.request.model": ("LLM", parameters(model=said)),
        "gen_ai.request.previous_response.id": ("LLM", parameters(previous_response_id=said)),
        "gen_ai.request.reasoning.level": ("LLM", parameters(reasoning_effort=said)),
        "gen_ai.request.stop_sequences": ("LLM", parameters(stop=["a", said])),
        "gen_ai.response.finish_reasons": ("LLM", {"llm.finish_reason": said}),
        "gen_ai.response.id": ("LLM", {"gen_ai.response.id": said}),
        "gen_ai.response.model": ("LLM", {"llm.model_name": said, "output.value": "x"}),
        "gen_ai.retrieval.documents": ("RETRIEVER", {f"{document}.content": said, f"{document}.id": "1"}),
        "gen_ai.retrieval.query.text": ("RETRIEVER", {"input.value": said}),
        "gen_ai.system_instructions": ("LLM", parameters(instructions=said)),
        "gen_ai.tool.call.arguments": ("TOOL", {"input.value": json.dumps({"at": said})}),
        "gen_ai.tool.call.id": ("TOOL", {"tool_call.id": said}),
        "gen_ai.tool.call.result": ("TOOL", {"output.value": said}),
        "gen_ai.tool.definitions": (
            "LLM",
            {
                "llm.tools.0.tool.json_schema": json.dumps(
                    {"type": "function", "function": {"name": "f", "description": said}}
                )
            },
        ),
        "gen_ai.tool.description": ("TOOL", {"tool.description": said}),
        "gen_ai.tool.name": ("TOOL", {"tool.name": said}),
        "llm.invocation_parameters": ("LLM", parameters(user=said)),
        "metadata": ("CHAIN", {"langfuse.trace.metadata.tenant": said}),
        "tag.tags": ("CHAIN", {"langfuse.trace.tags": ["a", said]}),
    }


# Of these nothing else is a text: they are written here, or have values of the conventions alone.
FIXED = {"gen_ai.operation.name", "gen_ai.output.type", "gen_ai.tool.type", "gen_ai.prompt.version"}
FIXED |= {"gen_ai.agent.description", "gen_ai.agent.id", "gen_ai.agent.version", "gen_ai.data_source.id"}  # not written
FIXED |= {"gen_ai.request.encoding_formats", "error.type"}  # below


def span_of(kind: str, attributes: dict[str, Any]) -> ReadableSpan:
    return finished("a span", attributes={"openinference.span.kind": kind, **attributes})


def body(span: ReadableSpan, shape: str, **environment: Any) -> bytes:
    return prepare(span, build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape, **environment})))


def read(sent: bytes) -> otlp.Span:
    (arrived,) = otlp.decode(sent, "application/x-protobuf")
    assert STUB not in arrived.attributes
    return arrived


def test_every_attribute_that_holds_text_is_planted() -> None:
    """No attribute of the conventions that can hold a text is forgotten below."""
    texts = {key for key, kind in ATTRIBUTES.items() if kind in ("string", "string[]", "any") or isinstance(kind, list)}

    assert texts - places("").keys() - FIXED == set()


@pytest.mark.parametrize("shape", ["genai", "all"])
@pytest.mark.parametrize("key", places(""))
def test_no_secret_leaves_in_any_attribute(key: str, shape: str) -> None:
    """A secret is redacted where it stands, and the rest of the text stays."""
    kind, attributes = places(SAID)[key]

    sent = body(span_of(kind, attributes), shape)

    assert TOKEN.encode() not in sent
    assert TOKEN[:20].encode() not in sent
    value = str(read(sent).attributes[key])
    assert "it is" in value
    assert "as before" in value


@pytest.mark.parametrize("shape", ["genai", "all"])
@pytest.mark.parametrize("key", [key for key, kind in ATTRIBUTES.items() if kind in ("string", "string[]", "any")])
def test_no_secret_leaves_in_what_a_framework_writes(key: str, shape: str) -> None:
    """The same holds for spans that a framework has written by the conventions."""
    value = [SAID] if ATTRIBUTES[key] == "string[]" else SAID
    span = with_changes(finished("chat m"), attributes={"gen_ai.operation.name": "chat", key: value})

    assert TOKEN.encode() not in body(span, shape)
    assert TOKEN.encode() not in body(span, shape, TELEMETRY_CONTENT="metadata-only")


@pytest.mark.parametrize("shape", ["genai", "all"])
def test_secrets_by_their_names_go_too(shape: str) -> None:
    """What an argument is called tells, now that arguments are objects."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"password":"hunter22x"}'}}
    said = MessagesJson(["[", json.dumps({"role": "assistant", "content": "", "tool_calls": [call]}), "]"])
    spans = [
        span_of("LLM", {"input.value": said}),
        span_of("TOOL", {"input.value": '{"password":"hunter22x"}'}),
        span_of("LLM", {"input.value": str(said)}),
    ]

    assert not [span for span in spans if b"hunter22x" in body(span, shape)]


@pytest.mark.parametrize("shape", ["genai", "all"])
def test_errors_have_no_secrets(shape: str) -> None:
    """The class of an error is redacted as everything else."""
    about = {"exception.type": SAID, "exception.message": SAID, "exception.stacktrace": SAID}
    span = finished(
        "a",
        Status(StatusCode.ERROR, SAID),
        attributes={"openinference.span.kind": "LLM"},
        events=(Event("exception", about, 1),),
    )

    assert TOKEN.encode() not in body(span, shape)


INPUTS = {
    "gen_ai.input.messages",
    "gen_ai.request.previous_response.id",
    "gen_ai.request.reasoning.level",
    "gen_ai.request.stop_sequences",
    "gen_ai.retrieval.query.text",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.definitions",
    "llm.invocation_parameters",
}
OUTPUTS = {"gen_ai.output.messages", "gen_ai.retrieval.documents", "gen_ai.tool.call.result"}


@pytest.mark.parametrize("shape", ["genai", "all"])
@pytest.mark.parametrize("key", INPUTS | OUTPUTS)
def test_hidden_content_leaves_in_no_attribute(key: str, shape: str) -> None:
    """The switches of OpenInference hide inputs and outputs under the new names, and only those that they are for."""
    kind, attributes = places("a rainy night")[key]
    span = span_of(kind, attributes)
    hides, shows = ("INPUTS", "OUTPUTS") if key in INPUTS else ("OUTPUTS", "INPUTS")

    assert b"a rainy night" not in body(span, shape, **{f"OPENINFERENCE_HIDE_{hides}": "true"})
    assert b"a rainy night" not in body(span, shape, TELEMETRY_CONTENT="metadata-only")
    assert b"a rainy night" in body(span, shape, **{f"OPENINFERENCE_HIDE_{shows}": "true"})


@pytest.mark.parametrize("shape", ["genai", "all"])
@pytest.mark.parametrize("key", places(""))
def test_of_metadata_only_what_is_called_leaves(key: str, shape: str) -> None:
    """A sentence is no name of an agent; what is listed as harmless stays with all content hidden."""
    kind, attributes = places("the doctor says that it is nothing")[key]

    attributes = read(body(span_of(kind, attributes), shape, TELEMETRY_CONTENT="metadata-only")).attributes

    assert attributes["gen_ai.operation.name" if kind != "CHAIN" else "openinference.span.kind"]
    if key == "gen_ai.agent.name":
        assert attributes[key] == "withheld"


def test_a_conversation_is_the_session_also_where_contacts_go() -> None:
    """Both are set on purpose, to find a conversation, and stay equal."""
    span = span_of("AGENT", {"session.id": "ada@example.com"})

    attributes = read(body(span, "genai", TELEMETRY_REDACT_CONTACTS="true", **HIDDEN)).attributes

    assert attributes["gen_ai.conversation.id"] == attributes["session.id"] == "ada@example.com"
