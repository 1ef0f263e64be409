"""Spans in the GenAI conventions' attributes: all that the conventions ask for, and each text once."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Status, StatusCode

import telemetry
from app.agents import load
from app.models.demo_model import DemoError
from app.models.models import load_models
from telemetry.export import otlp
from telemetry.export.formats.otel_genai import OPERATION
from telemetry.export.stages import build_stages, prepare_all
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.telemetry.export.genai_rules import ATTRIBUTES, conventions_of, violations
from tests.telemetry.instrumentation.langchain.test_recorder_conformance import FLOWS
from tests.telemetry.metrics.measuring import measuring
from tests.telemetry.planted import finished, with_changes

SHAPES = ("genai", "all")
QUESTION, ANSWER = "What is 12*34?", "The calculator tool says: 408"


def sent(spans: Sequence[ReadableSpan], shape: str = "genai", **environment: Any) -> list[otlp.Span]:
    """The spans as they arrive."""
    stages = build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape, **environment}))
    return otlp.decode(b"".join(prepare_all(spans, stages)), "application/x-protobuf")


def one(kind: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a span of OpenInference's as they arrive."""
    (arrived,) = sent([finished("a span", attributes={"openinference.span.kind": kind, **attributes})])
    assert list(violations(arrived)) == []
    return arrived.attributes


def read(attributes: dict[str, Any], key: str) -> Any:
    return json.loads(attributes[key])


async def recorded(langchain: str, name: str) -> Sequence[ReadableSpan]:
    with recording(Settings.model_construct(langchain=langchain)) as spans:
        with suppress(DemoError, ValueError):
            await FLOWS[name]()
        return spans.settled()


async def a_turn(langchain: str) -> Sequence[ReadableSpan]:
    """The spans of a streamed turn with a tool call."""
    with recording(Settings.model_construct(langchain=langchain)) as spans:
        graph = load("chatbot", load_models("demo"), InMemorySaver())
        asked: Any = {"messages": [HumanMessage(QUESTION)]}
        async with telemetry.turn("chatbot", input=QUESTION, session_id="t-1", user_id="ada") as turn:
            async for _ in graph.astream(asked, {"configurable": {"thread_id": "t-1"}}, stream_mode="messages"):
                pass
            turn.output = ANSWER
        return spans.settled()


@pytest.mark.parametrize("langchain", ["openinference", "recorder"])
@pytest.mark.parametrize("name", FLOWS)
async def test_every_span_conforms(name: str, langchain: str) -> None:
    """Names, types, values, levels and schemas are the conventions' own, in every flow of every agent."""
    spans = await recorded(langchain, name)

    for shape in SHAPES:
        arrived = sent(spans, shape)
        assert [wrong for span in arrived for wrong in violations(span)] == []
        assert any(OPERATION in span.attributes for span in arrived)


@pytest.mark.parametrize("name", ["chatbot, streamed: What is 12*34?", "retriever", "parts", "chatbot, invoked: /fail"])
async def test_both_recorders_say_the_same(name: str) -> None:
    """Whichever recorder is used, the conventions' attributes are the same ones."""
    ours, theirs = [sent(await recorded(langchain, name)) for langchain in ("recorder", "openinference")]

    def keys(spans: Sequence[otlp.Span]) -> list[tuple[str, list[str]]]:
        return sorted(
            (span.name, sorted(key for key in span.attributes if key.startswith("gen_ai."))) for span in spans
        )

    assert keys(ours) == keys(theirs)


async def test_names_and_kinds_by_the_conventions() -> None:
    """With the setting, a span is named by its operation and what it is of, and calls of models are CLIENT."""
    spans = await a_turn("recorder")

    plain, named = sent(spans), sent(spans, TELEMETRY_GENAI_NAMES="true")

    assert [span.name for span in plain] == [span.name for span in spans]
    assert {span.name for span in named} >= {"chat demo", "execute_tool calculator", "invoke_agent chatbot"}
    for span in named:
        if operation := span.attributes.get(OPERATION):
            known = conventions_of(operation)
            assert known
            of = span.attributes.get(known["name"])
            assert (span.name, span.kind) == (f"{operation} {of}" if of else operation, known["kind"])
    # The rest of a trace is the same.
    assert [span.name for span in named if OPERATION not in span.attributes] == [
        span.name for span in plain if OPERATION not in span.attributes
    ]


async def test_no_text_leaves_twice_in_one_span() -> None:
    """Of each message of a turn, a span has one copy, unless all formats are asked for."""
    spans = await a_turn("openinference")

    for span in sent(spans):
        everything = json.dumps(span.attributes)
        for words in ("You are a helpful assistant", QUESTION, ANSWER):
            assert everything.count(words) <= 1, span.name
    (model, *_) = [span for span in sent(spans, "all") if span.attributes.get(OPERATION) == "chat"]
    assert json.dumps(model.attributes).count("You are a helpful assistant") > 2


async def test_a_turn_in_the_conventions_words() -> None:
    """The agent has its question and answer, the model its messages, tools and figures, the tool what it did."""
    spans = await a_turn("recorder")
    by_operation: dict[Any, list[dict[str, Any]]] = {}
    for span in sorted(sent(spans), key=lambda span: span.start):
        by_operation.setdefault(span.attributes.get(OPERATION), []).append(span.attributes)

    (agent,), (graph,) = by_operation["invoke_agent"], by_operation["invoke_workflow"]
    assert read(agent, "gen_ai.input.messages") == [{"role": "user", "parts": [{"type": "text", "content": QUESTION}]}]
    (said,) = read(agent, "gen_ai.output.messages")
    assert (said["parts"][0]["content"], said["finish_reason"]) == (ANSWER, "stop")
    assert (agent["gen_ai.agent.name"], graph["gen_ai.agent.name"]) == ("chatbot", "chatbot")
    assert "gen_ai.input.messages" not in graph
    (tool,) = by_operation["execute_tool"]
    assert read(tool, "gen_ai.tool.call.arguments") == {"expression": "12*34"}
    assert (tool["gen_ai.tool.call.result"], tool["gen_ai.tool.name"]) == ("408", "calculator")
    asking, answering = by_operation["chat"]
    (message,) = read(asking, "gen_ai.output.messages")
    (call,) = message["parts"]
    assert [message["finish_reason"]] == asking["gen_ai.response.finish_reasons"]
    assert call == {
        "type": "tool_call",
        "id": tool["gen_ai.tool.call.id"],
        "name": "calculator",
        "arguments": {"expression": "12*34"},
    }
    *_, result = read(answering, "gen_ai.input.messages")
    assert result["parts"] == [{"type": "tool_call_response", "id": call["id"], "response": "408"}]
    assert [each["name"] for each in read(asking, "gen_ai.tool.definitions")][:2] == ["calculator", "current_time"]
    assert asking["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert asking["gen_ai.usage.input_tokens"] > 0
    assert 0 <= asking["gen_ai.response.time_to_first_chunk"] < 60
    assert not [key for key in agent if key.startswith("gen_ai.usage.")]  # they are the models'


def test_a_model_call_of_openinference() -> None:
    """Provider, parameters, ids, tokens and flat messages of any instrumentor get the conventions' names."""
    began = datetime.fromtimestamp(0.5, UTC).isoformat()
    parameters = {
        "model": "gpt-x",
        "temperature": 0,
        "max_completion_tokens": 9,
        "stop": "END",
        "top_k": 4,
        "n": 1,
        "reasoning_effort": "low",
        "tool_choice": "auto",
        "instructions": "Be brief.",
    }
    attributes = one(
        "LLM",
        {
            "session.id": "t-1",
            "llm.provider": "mistralai",
            "llm.model_name": "gpt-x-1",
            "llm.invocation_parameters": json.dumps(parameters),
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": "Hi",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "Hello",
            "output.value": "Hello",
            "llm.token_count.prompt": 10,
            "llm.token_count.completion": 5,
            "llm.token_count.prompt_details.cache_read": 4,
            "llm.token_count.prompt_details.cache_write": 2,
            "llm.token_count.completion_details.reasoning": 3,
            "llm.token_count.total": 15,
            "llm.finish_reason": "stop",
            "gen_ai.response.id": "r-1",
            "langfuse.observation.completion_start_time": began,
            "langfuse.observation.prompt.name": "greeting",
            "langfuse.observation.prompt.version": 3,
        },
    )

    assert {key: value for key, value in attributes.items() if not key.endswith("messages")} == {
        "openinference.span.kind": "LLM",
        "session.id": "t-1",
        OPERATION: "chat",
        "gen_ai.conversation.id": "t-1",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.response.model": "gpt-x-1",
        "gen_ai.response.id": "r-1",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.request.top_k": 4,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.request.stream": True,
        "gen_ai.system_instructions": '[{"type":"text","content":"Be brief."}]',
        "llm.invocation_parameters": '{"tool_choice":"auto"}',
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.499999999,
        "gen_ai.prompt.name": "greeting",
        "gen_ai.prompt.version": "3",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_write.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 3,
    }
    assert read(attributes, "gen_ai.input.messages")[0]["parts"] == [{"type": "text", "content": "Hi"}]
    assert read(attributes, "gen_ai.output.messages")[0]["parts"] == [{"type": "text", "content": "Hello"}]


@pytest.mark.parametrize(
    ("provider", "system", "name"),
    [
        ("openai", "openai", "openai"),
        ("azure", "openai", "azure.ai.openai"),
        ("azure", None, "azure.ai.inference"),
        ("aws", "anthropic", "aws.bedrock"),
        ("google", "vertexai", "gcp.gen_ai"),
        ("xai", None, "x_ai"),
        (None, "vertexai", "gcp.vertex_ai"),
        ("ibm", None, "ibm.watsonx.ai"),
        ("Together", None, "together"),
        (None, None, "_OTHER"),
    ],
)
def test_providers_have_the_conventions_names(provider: str | None, system: str | None, name: str) -> None:
    """A provider that they list is called as they call it; any other as it is, in small letters."""
    said = {key: value for key, value in {"llm.provider": provider, "llm.system": system}.items() if value}

    assert one("LLM", said)["gen_ai.provider.name"] == name


def test_a_failure_has_a_type() -> None:
    """A span that failed says its error's class, or at least that there was one; a model's answer ended in `error`."""
    about = {"exception.type": "lib.TooColdError", "exception.message": "brr", "exception.stacktrace": "s"}
    events = (Event("exception", about, 1),)
    failed = Status(StatusCode.ERROR, "brr")
    kinds = {"openinference.span.kind": "LLM"}
    spans = [
        finished("a", failed, attributes=kinds, events=events),
        finished("b", Status(StatusCode.ERROR, "TooColdError: brr"), attributes=kinds),
        finished("c", failed, attributes={"openinference.span.kind": "TOOL"}),
    ]

    arrived = sent(spans)

    assert [span.attributes["error.type"] for span in arrived] == ["lib.TooColdError", "TooColdError", "_OTHER"]
    assert [span.attributes.get("gen_ai.response.finish_reasons") for span in arrived] == [["error"], ["error"], None]
    assert [wrong for span in arrived for wrong in violations(span)] == []


STATUSES = {
    "ValueError: it broke": "ValueError",
    "ValueError: ": "ValueError",
    "ValueError": "ValueError",
    "httpx.ReadTimeout: no answer\nin time": "httpx.ReadTimeout",
    "the tool failed": "_OTHER",
    "Token: a1b2": "_OTHER",
    "": "_OTHER",
}


@pytest.mark.parametrize(("status", "name"), STATUSES.items())
def test_spans_and_metrics_name_an_error_alike(status: str, name: str) -> None:
    """The class that a status begins with is the type of the error, on the span and in its metric."""
    failed = Status(StatusCode.ERROR, status)

    (arrived,) = sent([finished("a tool", failed, attributes={"openinference.span.kind": "TOOL"})])
    with measuring() as measured:
        with telemetry.span("a tool", kind="TOOL") as span:
            span.set_status(failed)
        (counted,) = measured.counts("gen_ai.execute_tool.duration")

    assert (arrived.attributes["error.type"], counted) == (name, (name, "a tool"))


def test_retrievals_and_embeddings() -> None:
    """A retriever's query and documents, and an embedding's model and tokens, have names of their own."""
    found = one(
        "RETRIEVER",
        {
            "input.value": "sampling",
            "output.value": '{"documents":[]}',
            "retrieval.documents.0.document.id": "d-1",
            "retrieval.documents.0.document.score": 0.5,
            "retrieval.documents.0.document.content": "Sampling keeps some.",
            "retrieval.documents.0.document.metadata": '{"page": 3}',
        },
    )
    assert found["gen_ai.retrieval.query.text"] == "sampling"
    assert read(found, "gen_ai.retrieval.documents") == [
        {"id": "d-1", "score": 0.5, "content": "Sampling keeps some.", "metadata": {"page": 3}}
    ]
    assert "output.value" not in found

    embedded = one(
        "EMBEDDING",
        {"llm.provider": "cohere", "embedding.model_name": "e-1", "llm.token_count.prompt": 7},
    )
    assert (embedded[OPERATION], embedded["gen_ai.request.model"]) == ("embeddings", "e-1")
    assert embedded["gen_ai.usage.input_tokens"] == 7


def test_what_the_conventions_do_not_know_keeps_its_names() -> None:
    """Content of other spans stays where it is, and what is said of a trace is in two attributes."""
    attributes = one(
        "CHAIN",
        {
            "input.value": "a question",
            "output.value": "an answer",
            "langfuse.trace.name": "clerk",
            "langfuse.trace.tags": ["clerk", "vip"],
            "langfuse.trace.metadata.agent": "clerk",
            "langfuse.trace.metadata.run": "r-1",
            "metadata": '{"langgraph_node": "model", "langgraph_step": 3, "ls_provider": "x"}',
        },
    )

    assert attributes == {
        "openinference.span.kind": "CHAIN",
        "input.value": "a question",
        "output.value": "an answer",
        "tag.tags": ["vip"],
        "metadata": '{"langgraph_node":"model","langgraph_step":3,"run":"r-1"}',
    }


def test_spans_by_the_conventions_stay_as_they_are() -> None:
    """What a framework writes by the conventions is sent as it is, with what it lacks, under their present names."""
    given = {
        OPERATION: "chat",
        "gen_ai.system": "AZ.AI.OpenAI",
        "gen_ai.request.model": "m",
        "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"Hi"}]}]',
        "gen_ai.usage.cache_creation.input_tokens": 3,
        "session.id": "t-1",
        "langfuse.trace.metadata.run": "r-1",
    }

    (arrived,) = sent([with_changes(finished("chat m"), attributes=given)])

    assert arrived.attributes == {
        OPERATION: "chat",
        "gen_ai.system": "AZ.AI.OpenAI",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "m",
        "gen_ai.input.messages": given["gen_ai.input.messages"],
        "gen_ai.usage.cache_write.input_tokens": 3,
        "gen_ai.conversation.id": "t-1",
        "session.id": "t-1",
        "metadata": '{"run":"r-1"}',
    }


def test_messages_that_are_truncated_keep_their_schema() -> None:
    """Of a long conversation the middle is left out, and the rest is still a list of messages with parts."""
    messages = [{"role": "user", "content": f"{at}: {'word ' * 100}"} for at in range(300)]
    span = finished("m", attributes={"openinference.span.kind": "LLM", "input.value": json.dumps(messages)})

    (arrived,) = sent([span], TELEMETRY_MAX_VALUE_BYTES=8_000)

    text = arrived.attributes["gen_ai.input.messages"]
    assert len(text) <= 8_000
    assert "messages left out" in text
    assert list(violations(arrived)) == []


@pytest.mark.parametrize("operation", [each for each in ATTRIBUTES[OPERATION] if conventions_of(each)])
def test_the_rules_can_fail(operation: str) -> None:
    """A span without what is required, with a wrong type, an unknown name or a message of another form is found."""
    wrong = {
        OPERATION: operation,
        "gen_ai.request.max_tokens": 1.5,
        "gen_ai.made_up": "x",
        "gen_ai.output.type": "poem",
        "gen_ai.input.messages": '[{"role":"user","content":"Hi"}]',
    }
    span = otlp.from_sdk(finished("x", attributes=wrong))

    found = " ".join(violations(span))

    for words in ("max_tokens is no int", "gen_ai.made_up is no attribute", "none of its values", "its schema"):
        assert words in found
    known = conventions_of(operation)
    assert known
    assert all(f"{key} is missing" in found for key in known["required"] if key != OPERATION)
