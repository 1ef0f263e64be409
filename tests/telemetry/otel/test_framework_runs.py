"""Agents and model calls that other frameworks' instrumentations record."""

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from telemetry import pipeline
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare
from telemetry.settings import Settings
from telemetry.testing import Recorded
from tests.processes import serve
from tests.telemetry.langfuse_rules import Trace, traces

ASKED = [{"role": "user", "parts": [{"type": "text", "content": "What is 12*34?"}]}]
SAID = [{"role": "assistant", "parts": [{"type": "text", "content": "It is 408."}]}]
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-5.5",
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
    "gen_ai.input.messages": json.dumps(ASKED),
    "gen_ai.output.messages": json.dumps(SAID),
    "gen_ai.usage.input_tokens": 11,
    "gen_ai.usage.output_tokens": 7,
}
FLAT = {
    "openinference.span.kind": "LLM",
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "What is 12*34?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "It is 408.",
    "llm.token_count.prompt": 11,
    "llm.token_count.completion": 7,
}
QUESTION = {"role": "user", "content": "What is 12*34?"}


def tracer(name: str = "frameworks") -> trace.Tracer:
    active = pipeline.active()
    assert active
    return active.provider.get_tracer(name)


def arrived(spans: Recorded) -> list[Trace]:
    stages = build_stages(Settings())
    return traces(sent for span in spans.settled() for sent in _decoded(span, stages))


def _decoded(span: ReadableSpan, stages: Any) -> list[otlp.Span]:
    return otlp.decode(prepare(span, stages), "application/x-protobuf")


def test_genai_spans_have_types_messages_and_tokens(spans: Recorded) -> None:
    """An agent, a model call and a tool of OpenTelemetry's GenAI conventions are shown as those of OpenInference."""
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "clerk", "gen_ai.usage.input_tokens": 22}
    tool = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "calculator",
        "gen_ai.tool.call.arguments": '{"expression": "12*34"}',
        "gen_ai.tool.call.result": "408",
    }
    with tracer().start_as_current_span("invoke_agent clerk", attributes=agent):
        with tracer().start_as_current_span("chat gpt-5.5", attributes=CHAT):
            pass
        with tracer().start_as_current_span("execute_tool calculator", attributes=tool):
            pass

    (trace,) = arrived(spans)
    assert trace.name == "clerk"
    assert trace.root
    assert (trace.root.type, trace.root.input, trace.root.output) == ("agent", QUESTION["content"], "It is 408.")
    # Langfuse would count them once more.
    assert not [key for key in trace.root.span.attributes if "usage" in key]
    (call,) = trace.of("generation")
    assert call.input == [{"role": "system", "content": "Be brief."}, QUESTION]
    assert call.output == {"role": "assistant", "content": "It is 408."}
    assert call.usage == {"input": 11, "output": 7}
    (used,) = trace.of("tool")
    assert (used.input, used.output) == ({"expression": "12*34"}, 408)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (
            [{"type": "tool_call", "id": "c", "name": "add", "arguments": {"a": 1}}],
            {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}]},
        ),
        ([{"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "1"}], {"reasoning_content": "Hm."}),
    ],
)
def test_parts_of_a_message(spans: Recorded, parts: list[Any], expected: dict[str, Any]) -> None:
    """What a model says beside its words is kept."""
    said = {**CHAT, "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": parts}])}
    with tracer().start_as_current_span("chat", attributes=said):
        pass

    (trace,) = arrived(spans)
    assert expected.items() <= trace.observations[0].output.items()


def test_the_root_has_the_question_and_the_answer_of_the_models_below(spans: Recorded) -> None:
    """A root whose own values are not for people shows what was asked and answered."""
    odd = {
        "openinference.span.kind": "CHAIN",
        "input.value": '{"state": {"is_running": false}}',
        "output.value": "StopEvent(result=AgentOutput(response=1))",
    }
    run = tracer("openinference.instrumentation.x").start_as_current_span("run", attributes=odd)
    with run, tracer().start_as_current_span("chat", attributes=FLAT):
        pass

    (trace,) = arrived(spans)
    assert trace.root
    assert (trace.root.input, trace.root.output) == ("What is 12*34?", "It is 408.")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ('{"task": "What is 12*34?", "stream": false, "max_steps": null}', "It is 408."),
        ('{"input_args": {"question": "What is 12*34?"}}', '{"reasoning": "x", "answer": "It is 408."}'),
        (
            '{"new_message": {"parts": [{"text": "What is 12*34?"}]}}',
            '{"content": {"parts": [{"text": "It is 408."}]}}',
        ),
        ('{"question": "What is 12*34?"}', '{"raw": "It is 408.", "tasks_output": [{"raw": "It is 408."}]}'),
    ],
)
def test_a_run_says_itself_what_was_asked(spans: Recorded, given: str, answer: str) -> None:
    """The values of frameworks have fields around the words: a request shows the words."""
    run = {"openinference.span.kind": "AGENT", "input.value": given, "output.value": answer}
    prompted = {**FLAT, "llm.input_messages.0.message.content": "[[ a template ]]"}
    server = tracer("opentelemetry.instrumentation.fastapi")
    with (
        server.start_as_current_span("POST /ask", kind=trace.SpanKind.SERVER),
        tracer().start_as_current_span("run", attributes=run),
        tracer().start_as_current_span("chat", attributes=prompted),
    ):
        pass

    (found,) = arrived(spans)
    assert found.root
    assert (found.root.input, found.root.output) == ("What is 12*34?", "It is 408.")


def test_what_a_turn_says_is_kept(spans: Recorded) -> None:
    """`telemetry.turn` around another framework's agent has its own question and answer."""
    with telemetry.turn("support", input="Mine") as turn:
        with tracer().start_as_current_span("chat", attributes=FLAT):
            pass
        turn.output = "Also mine"

    (found,) = arrived(spans)
    assert found.root
    assert (found.name, found.root.input, found.root.output) == ("support", "Mine", "Also mine")


def test_a_call_that_two_record_counts_once(spans: Recorded) -> None:
    """A framework's span around the one of the model's own client has no tokens, and is no generation."""
    outer = {"openinference.span.kind": "LLM", "llm.model_name": "gpt-5.5"}
    with tracer().start_as_current_span("LM", attributes=outer), tracer().start_as_current_span("c", attributes=FLAT):
        pass

    (found,) = arrived(spans)
    assert [call.span.name for call in found.of("generation")] == ["c"]


def test_a_clients_bare_span_is_left_out(spans: Recorded) -> None:
    """A model's own client that says nothing of the messages adds nothing to the span around it."""
    bare = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "claude", "gen_ai.usage.input_tokens": 11}
    client = tracer("sdk")
    with (
        tracer().start_as_current_span("messages.create", attributes=FLAT),
        client.start_as_current_span("create", attributes=bare, kind=trace.SpanKind.CLIENT),
    ):
        pass
    with client.start_as_current_span("alone", attributes=bare, kind=trace.SpanKind.CLIENT):
        pass

    assert sorted(span.name for span in spans.settled()) == ["alone", "messages.create"]


def test_no_http_span_beside_a_model_call(spans: Recorded) -> None:
    """The requests of a model call make no spans, also when its client streams; other requests do."""
    app = FastAPI()
    app.post("/v1/chat/completions")(lambda: "It is 408.")
    app.post("/documents")(lambda: "Found.")
    with serve(app) as url, tracer().start_as_current_span("around"):
        call = tracer().start_span("chat", attributes=FLAT)
        for _ in range(2):  # once more, after a failure
            httpx.post(f"{url}/v1/chat/completions")
        # While the answer is read.
        httpx.post(f"{url}/documents")
        call.end()
        httpx.post(f"{url}/v1/chat/completions")

    names = [span.name for found in arrived(spans) for span in (each.span for each in found.observations)]
    assert sorted(name for name in names if name.startswith("POST")) == [
        "POST 127.0.0.1 /documents",
        "POST 127.0.0.1 /v1/chat/completions",
    ]


def test_provider_says_calls_among_the_content(spans: Recorded) -> None:
    """A tool call that is among the parts of a message's content as well is shown once."""
    said = {
        "openinference.span.kind": "LLM",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.contents.0.message_content.type": "tool_use",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "add",
    }
    with tracer().start_as_current_span("messages.create", attributes=said):
        pass

    (found,) = arrived(spans)
    output = found.observations[0].output
    assert output["content"] == ""
    assert len(output["tool_calls"]) == 1
