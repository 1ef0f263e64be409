"""Between a finished span and the wire nothing raises, and nothing is lost silently."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from telemetry import internal_errors
from telemetry.export import otlp
from telemetry.export.stages import STUB, Stage, build_redact_stage, build_stages, prepare, prepare_all
from telemetry.messages_json import MessagesJson
from telemetry.settings import Settings
from tests.telemetry.planted import CONTEXT, encoded, finished

PROTOBUF = "application/x-protobuf"
PREPARED = "prepare a span"

MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "openinference": {"TELEMETRY_SHAPE": "openinference"},
    "genai": {"TELEMETRY_SHAPE": "genai", "TELEMETRY_GENAI_NAMES": "true"},
    "all": {"TELEMETRY_SHAPE": "all"},
    "strict": {
        "TELEMETRY_REDACT_CONTACTS": "true",
        "TELEMETRY_USER_HASH_KEY": "k",
        "TELEMETRY_REDACT_PATTERNS": "a+",
        "TELEMETRY_MAX_VALUE_BYTES": 100,
        "TELEMETRY_MAX_SPAN_BYTES": 1_000,
    },
    "metadata": {"TELEMETRY_CONTENT": "metadata-only"},
}
REDACT = build_redact_stage(Settings())
STAGES = {name: build_stages(Settings.model_validate(mode)) for name, mode in MODES.items()}


@pytest.fixture
def counted() -> Iterator[list[int]]:
    """How many spans were stubs since the test began, filled in at its end."""
    before = internal_errors.counts().get(PREPARED, 0)
    count: list[int] = []
    yield count
    assert internal_errors.counts().get(PREPARED, 0) - before == sum(count)


def received(span: ReadableSpan, stages: tuple[Stage, ...]) -> otlp.Span:
    (arrived,) = otlp.decode(prepare(span, stages), PROTOBUF)
    return arrived


def test_a_span_is_what_it_was() -> None:
    """Without stages a span arrives whole: ids, times, kind, status, events, links, resource."""
    span = finished(
        "ä",
        Status(StatusCode.ERROR, "no"),
        kind=SpanKind.SERVER,
        parent=SpanContext(CONTEXT.trace_id, 7, is_remote=True, trace_flags=TraceFlags(1)),
        attributes={"text": "ü", "n": -1, "f": 0.5, "yes": True, "raw": b"\xff", "list": ("a", "b")},
        events=(Event("half way", {"percent": 50}, 7),),
        links=(Link(CONTEXT, {"why": "because"}),),
    )

    (arrived,) = otlp.decode(encoded(span), PROTOBUF)

    assert arrived == otlp.from_sdk(span)
    assert (arrived.kind, arrived.status, arrived.message) == ("SERVER", "ERROR", "no")
    assert arrived.parent_id == "0000000000000007"
    assert arrived.attributes["list"] == ["a", "b"]
    assert arrived.events == [otlp.Event("half way", 7, {"percent": 50})]


def test_requests_join() -> None:
    """Requests put one behind the other are one request."""
    bodies = [prepare(finished(f"span {at}"), STAGES["default"]) for at in range(5)]

    assert [span.name for span in otlp.decode(b"".join(bodies), PROTOBUF)] == [f"span {at}" for at in range(5)]


def test_spans_that_are_prepared_together_become_what_each_becomes_alone() -> None:
    """What is clean, what holds a secret, and what was said twice: searching them all at once leaves no other bytes."""
    said = MessagesJson(["[", '{"role":"user","content":"good morning"}', "]"])
    secret = MessagesJson(["[", '{"role":"user","content":"my password=hunter22x"}', "]"])
    kind = {"openinference.span.kind": "LLM"}
    clean = [finished(f"s{at}", attributes={**kind, "input.value": said}) for at in range(3)]
    odd = [finished(f"odd {at}", attributes={**kind, "input.value": secret}) for at in range(2)]
    for spans in (clean, [*clean, odd[0]], [odd[0], *clean, *clean, odd[1], *clean]):
        for name, mode in MODES.items():
            together = prepare_all(spans, build_stages(Settings.model_validate(mode)))
            assert together == [prepare(span, STAGES[name]) for span in spans]
            assert b"hunter22x" not in b"".join(together)


def test_one_that_cannot_be_prepared_takes_no_other_along(counted: list[int]) -> None:
    """Only the span whose stage raises goes without its content."""

    def broken(span: otlp.Span) -> otlp.Span:
        if span.name == "odd":
            raise RuntimeError
        return span

    bodies = prepare_all([finished("one"), finished("odd"), finished("two")], (broken, REDACT))
    counted.append(1)
    arrived = otlp.decode(b"".join(bodies), PROTOBUF)
    assert [(span.name, STUB in span.attributes) for span in arrived] == [
        ("one", False),
        ("odd", True),
        ("two", False),
    ]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_stage_that_raises_fails_closed(at: int, counted: list[int]) -> None:
    """Where a stage raises, the span goes with its ids and without its content, says so, and is counted."""

    def broken(span: otlp.Span) -> otlp.Span:
        raise RuntimeError(f"odd: {span.attributes}")

    stages = (*STAGES["default"][:at], broken, *STAGES["default"][at:])
    span = finished(
        "of ada",
        Status(StatusCode.ERROR, "said"),
        attributes={"note": "said"},
        events=(Event("said", {"a": "said"}, 1),),
        links=(Link(CONTEXT, {"why": "said"}),),
        resource={"host.name": "said"},
    )

    arrived = received(span, stages)
    counted.append(1)

    assert (arrived.trace_id, arrived.span_id) == (otlp.from_sdk(span).trace_id, otlp.from_sdk(span).span_id)
    assert (arrived.start, arrived.end, arrived.status) == (1, 2, "ERROR")
    assert arrived.attributes[STUB] is True
    assert arrived.attributes["langfuse.observation.status_message"].endswith("failed with RuntimeError")
    assert "said" not in str(arrived)
    assert arrived.resource == {"service.name": "shop"}


def test_a_stub_names_no_names(counted: list[int]) -> None:
    """The name of a stub's span stays only where it is plain words."""

    def broken(span: otlp.Span) -> otlp.Span:
        raise ValueError(span.name)

    assert received(finished("chat turn"), (broken, REDACT)).name == "chat turn"
    assert received(finished("GET /users/ada@example.org"), (broken, REDACT)).name == "withheld"
    counted.append(2)


def test_a_failure_is_logged_without_content(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says where it failed and not what the exception quotes."""
    internal_errors.reset()

    def broken(span: otlp.Span) -> otlp.Span:
        raise ValueError(span.attributes["note"])

    received(finished(attributes={"note": "a secret of ada"}), (broken,))

    assert "ValueError" in caplog.text
    assert "ada" not in caplog.text


TEXT = st.text(st.characters(), max_size=200)  # every character, halves of surrogate pairs too
BROKEN = st.sampled_from(
    [
        '{"a": NaN, "b": [Infinity]}',
        '{"messages": [[{"lc": 1, "kwargs": 5, "id": {}}]], "generations": [[1, null]]}',
        '{"messages": [{"type": "human", "data": null}], "a": "\\ud800"}',
        '[["user"], ["user", 1], [[]]]',
        '{"generations": {"a": 1}}',
        '{"a": ' * 500,
        "[" * 300 + "]" * 300,
        '{"password": {"a": [1, "x"]}, "token": NaN}',
        '{"messages": [{"role": "assistant", "content": null, "tool_calls": [1, {"function": 3, "args": "x"}]}]}',
        "{}",
        "[]",
        '"',
        "\x00",
    ]
)
SCALAR = st.booleans() | st.integers() | st.floats() | TEXT | BROKEN | st.binary(max_size=50)
VALUE = st.recursive(
    SCALAR | st.none(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)
KEY = TEXT | st.sampled_from(
    [
        "input.value", "output.value", "metadata", "llm.output_messages.0.message.content", "llm.invocation_parameters",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id", "llm.tools.0.tool.json_schema", "url.full",
        "http.request.method", "user.id", "session.id", "llm.cost.total", "llm.finish_reason", "password", "model",
        "openinference.span.kind", "exception.type", "langfuse.observation.input",
    ]
)  # fmt: skip
KINDS = st.sampled_from(["LLM", "TOOL", "CHAIN", "AGENT", "RETRIEVER", "odd"])
ATTRIBUTES = st.dictionaries(KEY, VALUE, max_size=12)
EVENTS = st.builds(
    lambda name, attributes: Event(name, attributes, 1),
    TEXT | st.just("exception"),
    st.dictionaries(
        st.sampled_from(["exception.type", "exception.message", "exception.stacktrace"]) | TEXT, VALUE, max_size=4
    ),
)


@st.composite
def any_span(draw: st.DrawFn) -> ReadableSpan:
    """A span of the SDK with anything in it; as instrumentors may build them, past the checks of `set_attribute`."""
    return ReadableSpan(
        draw(TEXT),
        CONTEXT,
        kind=draw(st.sampled_from(SpanKind)),
        attributes={**draw(ATTRIBUTES), "openinference.span.kind": draw(KINDS)},
        events=tuple(draw(st.lists(EVENTS, max_size=3))),
        links=tuple(Link(CONTEXT, each) for each in draw(st.lists(ATTRIBUTES, max_size=2))),
        status=Status(draw(st.sampled_from(StatusCode)), None),
        resource=Resource({"service.name": "shop"}),
        start_time=draw(st.integers(0, 2**62)),
        end_time=draw(st.integers(0, 2**62)),
    )


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(span=any_span())
def test_anything_arrives(mode: str, span: ReadableSpan) -> None:
    """Whatever a span holds, preparing it never raises: it arrives, or a stub that was counted does."""
    before = internal_errors.counts().get(PREPARED, 0)

    arrived = received(span, STAGES[mode])

    assert arrived.span_id == otlp.from_sdk(span).span_id
    assert internal_errors.counts().get(PREPARED, 0) - before == (STUB in arrived.attributes)
    assert STUB not in arrived.attributes


def test_every_json_that_arrives_parses() -> None:
    """What was lenient JSON is strict JSON afterwards, where it is ours to write."""
    given = {"messages": [{"role": "user", "content": "x", "score": float("nan")}], "n": float("inf")}
    span = finished(attributes={"input.value": json.dumps(given)})

    shown = received(span, STAGES["default"]).attributes["langfuse.observation.input"]

    assert json.loads(shown, parse_constant=pytest.fail) == {"messages": [{"role": "user", "content": "x"}], "n": None}
