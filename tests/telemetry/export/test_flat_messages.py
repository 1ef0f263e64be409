"""A model call in OpenInference's shape has its messages one by one, as OpenInference's own users read them."""

import json
from contextlib import suppress
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage

import telemetry
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare
from telemetry.settings import Settings
from telemetry.testing import Recorded

CALL = ToolCall(name="look_up", args={"q": "x"}, id="c-1", type="tool_call")
ASKED: list[Any] = [
    SystemMessage("Be brief."),
    HumanMessage([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "https://a/b"}}]),
    AIMessage("", tool_calls=[CALL]),
    ToolMessage("found", tool_call_id="c-1", name="look_up"),
]


def leaving(spans: Recorded, **settings: Any) -> dict[str, Any]:
    stages = build_stages(Settings.model_construct(shape="openinference", **settings))
    (span,) = [otlp.decode(prepare(span, stages), "application/x-protobuf")[0] for span in spans.settled()]
    return span.attributes


@pytest.mark.usefixtures("langchain")
def test_messages_stand_one_by_one(spans: Recorded) -> None:
    """Roles, parts, tool calls and their answers each have an attribute, beside the whole."""
    GenericFakeChatModel(messages=iter([AIMessage("fine")])).invoke(ASKED)
    said = leaving(spans)
    prefix = "llm.input_messages."
    assert {key.removeprefix(prefix): value for key, value in said.items() if key.startswith(prefix)} == {
        "0.message.role": "system",
        "0.message.content": "Be brief.",
        "1.message.role": "user",
        "1.message.contents.0.message_content.type": "text",
        "1.message.contents.0.message_content.text": "What is it?",
        "1.message.contents.1.message_content.type": "image",
        "1.message.contents.1.message_content.image.image.url": "https://a/b",
        "2.message.role": "assistant",
        "2.message.content": "",
        "2.message.tool_calls.0.tool_call.id": "c-1",
        "2.message.tool_calls.0.tool_call.function.name": "look_up",
        "2.message.tool_calls.0.tool_call.function.arguments": '{"q":"x"}',
        "3.message.role": "tool",
        "3.message.content": "found",
        "3.message.name": "look_up",
        "3.message.tool_call_id": "c-1",
    }
    assert "input.value" in said


@pytest.mark.usefixtures("langchain")
def test_what_is_hidden_stays_hidden(spans: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither OpenInference's switches nor ours let them out, and a secret in them is taken out."""
    key = "ghp_" + "a1B2" * 9
    GenericFakeChatModel(messages=iter([AIMessage("fine")])).invoke([HumanMessage(f"use {key}")])
    assert key not in str(leaving(spans))
    for hidden in ({"hide_inputs": True}, {"content": "metadata-only"}):
        assert not [name for name in leaving(spans, **hidden) if name.startswith("llm.input_messages")]
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUT_MESSAGES", "true")
    assert not [name for name in leaving(spans) if name.startswith("llm.input_messages")]


def shown(spans: Recorded) -> dict[str, Any]:
    (span,) = spans.settled()
    return build_stages(Settings.model_construct(shape="langfuse"))[0](otlp.from_sdk(span)).attributes


def record(**attributes: str) -> None:
    with telemetry.span("m", kind="LLM", **attributes):
        pass


ANSWER = "llm.output_messages."
PARTS = "message.contents."


def test_messages_that_stand_one_by_one_are_put_together(spans: Recorded) -> None:
    """All of an answer's messages, with parts, images and calls; not what a program wrote as a repr."""
    call = f"{ANSWER}1.message.tool_calls.0.tool_call."
    record(
        **{
            "input.value": '{"messages": ["ChatMessage(role=<user>, content=hi)"]}',
            "llm.input_messages.0.message.role": "system",
            "llm.input_messages.0.message.content": "Be brief.",
            f"llm.input_messages.1.{PARTS}0.message_content.type": "text",
            f"llm.input_messages.1.{PARTS}0.message_content.text": "hi",
            f"llm.input_messages.1.{PARTS}1.message_content.type": "image",
            f"llm.input_messages.1.{PARTS}1.message_content.image.image.url": "https://a/b",
            "llm.input_messages.1.message.role": "user",
            "output.value": '{"output": []}',
            f"{ANSWER}0.message.role": "assistant",
            f"{ANSWER}0.{PARTS}0.message_content.type": "reasoning",
            f"{ANSWER}0.{PARTS}0.message_content.text": "let me see",
            f"{ANSWER}1.message.role": "assistant",
            f"{ANSWER}1.{PARTS}0.message_content.type": "text",
            f"{ANSWER}1.{PARTS}0.message_content.text": "It is 42.",
            f"{call}id": "c-1",
            f"{call}function.name": "look_up",
            f"{call}function.arguments": "{}",
        }
    )
    said = shown(spans)
    assert json.loads(said["langfuse.observation.input"]) == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://a/b"}}],
        },
    ]
    reasoning, answer = json.loads(said["langfuse.observation.output"])
    assert reasoning["content"] == [{"type": "reasoning", "text": "let me see"}]
    assert answer["content"] == "It is 42."
    assert answer["tool_calls"][0]["function"] == {"name": "look_up", "arguments": "{}"}


def test_what_is_listed_whole_is_not_replaced(spans: Recorded) -> None:
    """A request's own messages stay where the single ones are no more than these."""
    record(
        **{
            "input.value": '{"messages": [{"role": "user", "content": "whole"}]}',
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": "flat",
        }
    )
    assert json.loads(shown(spans)["langfuse.observation.input"]) == [{"role": "user", "content": "whole"}]


def test_a_call_has_openinferences_own_keys(spans: Recorded) -> None:
    """What Langfuse reads of a trace is told under OpenInference's names, the first token as its event."""
    with telemetry.scope(agent="clerk", tags=["blue"], metadata={"tenant": "acme"}, session_id="s"):
        record(**{"langfuse.observation.completion_start_time": "2026-01-01T00:00:00+00:00"})
    (span,) = spans.settled()
    sent = build_stages(Settings.model_construct(shape="openinference"))[0](otlp.from_sdk(span))
    assert not [key for key in sent.attributes if key.startswith("langfuse.")]
    assert list(sent.attributes["tag.tags"]) == ["blue"]
    assert json.loads(sent.attributes["metadata"]) == {"tenant": "acme"}
    assert sent.attributes["session.id"] == "s"
    assert [(event.name, event.time) for event in sent.events] == [("First Token Stream Event", 1767225600 * 10**9)]


def test_each_failed_span_has_an_exception_event(spans: Recorded) -> None:
    """Those above the one that failed say what it was, without the stack."""
    with suppress(KeyError), telemetry.span("outer"), telemetry.span("inner"):
        raise KeyError("x")
    stage = build_stages(Settings.model_construct(shape="openinference"))[0]
    inner, outer = (stage(otlp.from_sdk(span)) for span in spans.settled())
    assert [event.name for event in (*inner.events, *outer.events)] == ["exception", "exception"]
    assert outer.events[0].attributes == {"exception.type": "KeyError", "exception.message": "'x'"}
    assert "exception.stacktrace" in inner.events[0].attributes
