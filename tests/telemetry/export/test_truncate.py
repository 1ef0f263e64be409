"""What is too long keeps its beginning and its end, and stays what it was."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from app.agents import load
from app.models.models import load_models
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare
from telemetry.export.truncate import SHORTENED, build_truncate_stage, fit, fit_text, size
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.telemetry.langfuse_rules import Observation, Trace, violations
from tests.telemetry.planted import finished

PROTOBUF = "application/x-protobuf"
WORDS = "It was the best of times, it was the worst of times, it was the age of wisdom; "


UNLIMITED = {"TELEMETRY_MAX_VALUE_BYTES": 0, "TELEMETRY_MAX_SPAN_BYTES": 0}


@pytest.fixture(scope="module", params=["openinference", "recorder"])
def langchain(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def long_turn(langchain: str) -> list[ReadableSpan]:
    """A turn of two model calls on a thread of 200 messages."""
    return long(langchain)


def long(langchain: str, **environment: Any) -> list[ReadableSpan]:
    """The spans of such a turn, recorded with these settings."""
    said = [HumanMessage, AIMessage]
    history = [said[at % 2](f"{at}: {WORDS * 4}"[:330], id=str(at)) for at in range(199)]
    graph = load("chatbot", load_models("demo"), InMemorySaver())
    with recording(Settings.model_validate({"TELEMETRY_LANGCHAIN": langchain, **environment})) as spans:
        with telemetry.scope(session_id="t-1", user_id="ada", agent="chatbot"), telemetry.span("turn") as root:
            root.set_attributes({"input.value": "What is 12*34?", "output.value": "408"})
            asyncio.run(_stream(graph, [*history, HumanMessage("What is 12*34?", id="last")]))
        return list(spans.settled())


async def _stream(graph: CompiledStateGraph, messages: list[BaseMessage]) -> None:
    config = RunnableConfig(configurable={"thread_id": "t-1"})
    async for _ in graph.astream({"messages": messages}, config, stream_mode="messages"):
        pass


def arrived(spans: list[ReadableSpan], **environment: Any) -> tuple[int, list[otlp.Span]]:
    """How many bytes these spans take before compression, and the spans."""
    stages = build_stages(Settings.model_validate(environment))
    body = b"".join(prepare(span, stages) for span in spans)
    return len(body), otlp.decode(body, PROTOBUF)


def test_a_long_thread_within_its_budgets(long_turn: list[ReadableSpan]) -> None:
    """A turn on 200 messages takes at most 150 KB, every JSON parses, the first and the last message are there."""
    taken, spans = arrived(long_turn)

    assert taken <= 150_000
    trace = Trace([Observation(span) for span in spans])
    assert violations(trace) == []
    calls = trace.of("generation")
    assert len(calls) == 2
    for call in calls:
        messages = call.input["messages"]
        assert messages[0]["role"] == "system"
        assert any("messages left out" in str(message["content"]) for message in messages)
        assert len(call.input["tools"]) == 2
        assert call.span.attributes[SHORTENED] > 10_000
    assert calls[1].input["messages"][-1]["content"] == "408"


def test_a_long_thread_without_budgets(langchain: str) -> None:
    """Without budgets it takes at most 230 KB, and each model call has every message."""
    taken, spans = arrived(long(langchain, **UNLIMITED), **UNLIMITED)

    assert taken <= 230_000
    trace = Trace([Observation(span) for span in spans])
    assert violations(trace) == []
    assert [len(call.input["messages"]) for call in trace.of("generation")] == [201, 203]


def test_a_short_turn_is_small(langchain: str) -> None:
    """A turn on two messages takes at most 25 KB."""
    graph = load("chatbot", load_models("demo"), InMemorySaver())
    with recording(Settings.model_construct(langchain=langchain)) as spans:
        with telemetry.scope(session_id="t-1", user_id="ada", agent="chatbot"), telemetry.span("turn"):
            asyncio.run(_stream(graph, [HumanMessage("Hello"), AIMessage("Hi"), HumanMessage("What is 12*34?")]))
        taken, _ = arrived(list(spans.settled()))
    assert taken <= 25_000


def test_a_turn_is_a_constant_above_its_budgets(langchain: str) -> None:
    """On a long thread only what the model was given grows with the budget; all else of the turn is small."""
    taken, _ = arrived(long(langchain))
    shorter, _ = arrived(long(langchain, TELEMETRY_MAX_VALUE_BYTES=8_000), TELEMETRY_MAX_VALUE_BYTES=8_000)

    assert taken - shorter == pytest.approx(2 * 40_000, rel=0.1)
    assert shorter - 2 * 8_000 < 20_000


def test_text_keeps_both_ends() -> None:
    """Long text keeps its beginning and its end, and says how much is missing between."""
    text = "begin " + "x" * 100_000 + " end"

    short = fit_text(text, 2_000)

    assert short.startswith("begin ")
    assert short.endswith(" end")
    assert "characters left out" in short
    assert size(short) <= 2_000


@pytest.mark.parametrize("value", [[], {}, [[]], {"": []}, "", 10**400, None])
@pytest.mark.parametrize("budget", [0, 1, 5, 90])
def test_no_budget_is_too_small(value: Any, budget: int) -> None:
    """A share of a budget may be nothing at all: what is said then is short."""
    assert size(fit({"a": value, "b": [value] * 50}, budget)) < 200
    assert size(fit(value, budget)) < 200


def test_what_fits_is_not_touched() -> None:
    """A span within its budgets is the same span."""
    span = otlp.from_sdk(finished(attributes={"input.value": '{"a":  1}', "n": 1, "list": ["a"]}))

    assert build_truncate_stage(48_000, 256_000)(span) == span


def test_a_large_span_shares_its_budget() -> None:
    """Many long values share what a span may take; the short ones stay whole."""
    attributes = {f"value.{at}": WORDS * 300 for at in range(30)}
    span = otlp.from_sdk(finished(attributes={**attributes, "short": "whole"}))

    short = build_truncate_stage(48_000, 100_000)(span)

    assert sum(len(str(value)) for value in short.attributes.values()) <= 105_000
    assert short.attributes["short"] == "whole"
    assert short.attributes["value.7"].startswith(WORDS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=20), inner, max_size=8),
    max_leaves=60,
)


@settings(max_examples=50, deadline=None)
@given(
    value=st.lists(JSON, min_size=1, max_size=20) | st.dictionaries(st.text(max_size=20), JSON),
    budget=st.integers(100, 3_000),
)
def test_any_json_fits_and_parses(value: Any, budget: int) -> None:
    """Whatever is shortened parses afterwards, and takes hardly more than its budget."""
    large = {"first": value, "text": WORDS * 50, "many": [value] * 20}

    short = json.dumps(fit(large, budget), ensure_ascii=False)

    assert json.loads(short)
    assert size(fit(large, budget)) <= max(budget * 1.2, 300)


@settings(max_examples=50, deadline=None)
@given(text=st.text(min_size=10), times=st.integers(1, 2_000), budget=st.integers(100, 5_000))
def test_any_text_fits(text: str, times: int, budget: int) -> None:
    """Text of any letters takes no more than its budget in JSON."""
    assert size(fit_text(text * times, budget)) <= budget
