"""The events of the GenAI conventions, as log records: off unless asked, redacted, each call of a model once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from telemetry.settings import Settings
from telemetry.testing import Receiver
from tests.otlp_signals import Signals, run_program

SECRET = "sk-proj-Zx81hQ2mV0pLr5tYw9Kc3NbEa7DfGu6J"
DETAILS, EVALUATION = "gen_ai.client.inference.operation.details", "gen_ai.evaluation.result"
EXCEPTION = "gen_ai.client.operation.exception"
AGENT = f"""
import telemetry
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

telemetry.configure("shop")
model = GenericFakeChatModel(messages=iter([AIMessage("It is 408, {SECRET}")]))
builder = StateGraph(MessagesState)
builder.add_node("answer", lambda state: {{"messages": [model.invoke(state["messages"])]}})
builder.add_edge(START, "answer")
graph = builder.compile(name="clerk")
with telemetry.scope(session_id="s-1"):
    graph.invoke({{"messages": [("user", "What is 12*34? {SECRET}")]}})
"""


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as running:
        yield running


def events(signals: Signals, name: str) -> list[LogRecord]:
    """The events of this name that have arrived."""
    return [record for record in signals.logs() if record.event_name == name]


def asked(signals: Signals, **more: str) -> dict[str, str]:
    """The settings that send events there."""
    endpoint = f"{signals.endpoint}/v1/logs"
    return {
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": endpoint,
        "OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT": "true",
        **more,
    }


def plain(value: AnyValue) -> Any:
    """A value of OTLP as one of Python."""
    match value.WhichOneof("value"):
        case "array_value":
            return [plain(each) for each in value.array_value.values]
        case "kvlist_value":
            return attributes(value.kvlist_value.values)
        case kind:
            return getattr(value, kind) if kind else None


def attributes(pairs: Any) -> Mapping[str, Any]:
    """Attributes of OTLP as a dictionary."""
    listed: list[KeyValue] = list(pairs)
    return {each.key: plain(each.value) for each in listed}


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
@pytest.mark.parametrize("shape", ["langfuse", "genai"])
def test_each_call_of_a_model_is_one_event(
    receiver: Receiver, signals: Signals, tmp_path: Path, recorder: str, shape: str
) -> None:
    """It belongs to the call's span, with messages as values rather than JSON, and without secrets."""
    settings = asked(signals, TELEMETRY_LANGCHAIN=recorder, TELEMETRY_SHAPE=shape)
    run_program(f"{AGENT}\ntelemetry.shutdown()", tmp_path, receiver, **settings)

    (event,) = events(signals, DETAILS)
    (span,) = [span for span in receiver.wait() if span.name == "GenericFakeChatModel"]
    assert (event.trace_id.hex(), event.span_id.hex()) == (span.trace_id, span.span_id)
    assert event.severity_number == 5
    assert plain(event.body) is None
    told = attributes(event.attributes)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.conversation.id"] == "s-1"
    (question,) = told["gen_ai.input.messages"]
    (answer,) = told["gen_ai.output.messages"]
    assert (question["role"], answer["role"]) == ("user", "assistant")
    assert question["parts"][0]["content"].startswith("What is 12*34? [redacted")
    assert answer["parts"][0]["content"].startswith("It is 408, [redacted")
    assert all(key.startswith(("gen_ai.", "error.type", "server.")) for key in told)
    assert not any(SECRET.encode() in request.SerializeToString() for request in signals.requests)


def test_a_call_that_a_framework_traces(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """A span that follows the conventions itself is an event too; one of another operation is none."""
    code = f"""
        import json
        import telemetry
        from opentelemetry import trace
        telemetry.configure("shop")
        tracer = trace.get_tracer("framework")
        said = json.dumps([{{"role": "user", "parts": [{{"type": "text", "content": "Hello {SECRET}"}}]}}])
        for operation in ("chat", "execute_tool"):
            known = {{"gen_ai.operation.name": operation, "gen_ai.input.messages": said, "gen_ai.request.model": "m"}}
            tracer.start_span(operation, attributes=known).end()
        telemetry.shutdown()
    """
    run_program(code, tmp_path, receiver, **asked(signals))
    (event,) = events(signals, DETAILS)
    told = attributes(event.attributes)
    assert told["gen_ai.request.model"] == "m"
    assert told["gen_ai.input.messages"][0]["parts"][0]["content"].startswith("Hello [redacted")


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
def test_a_call_that_fails(receiver: Receiver, signals: Signals, tmp_path: Path, recorder: str) -> None:
    """Its error is an event of its own: class, message and stack, redacted; a call that succeeds has none."""
    code = f"""
        import telemetry
        from langchain_core.language_models.fake_chat_models import GenericFakeChatModel

        class Broken(GenericFakeChatModel):
            def _generate(self, *_, **__):
                raise TimeoutError("no answer, {SECRET}")

        telemetry.configure("shop")
        GenericFakeChatModel(messages=iter(["408"])).invoke("What is 12*34?")
        try:
            Broken(messages=iter([])).invoke("What is 12*34?")
        except TimeoutError:
            pass
        telemetry.shutdown()
    """
    run_program(code, tmp_path, receiver, **asked(signals, TELEMETRY_LANGCHAIN=recorder))
    (event,) = events(signals, EXCEPTION)
    failed = next(span for span in receiver.wait(2) if span.name == "Broken")
    assert (event.trace_id.hex(), event.span_id.hex()) == (failed.trace_id, failed.span_id)
    assert event.severity_number == 13
    told = attributes(event.attributes)
    assert told["exception.type"] == "TimeoutError"
    assert told["exception.message"].startswith("TimeoutError: no answer, [redacted")
    assert "in _generate" in told["exception.stacktrace"]
    assert told.keys() == {"exception.type", "exception.message", "exception.stacktrace"}
    assert len(events(signals, DETAILS)) == 2
    assert SECRET.encode() not in b"".join(request.SerializeToString() for request in signals.requests)


def test_a_score_is_an_event_on_its_trace(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """A number has a value, a category a label, a comment is redacted; a score that is deleted is no event."""
    code = f"""
        import telemetry
        telemetry.configure("shop")
        with telemetry.span("answer"):
            telemetry.score("helpful", True, comment="{SECRET}")
            telemetry.score("tone", "polite")
            telemetry.score("tone", None)
        telemetry.shutdown()
    """
    run_program(code, tmp_path, receiver, **asked(signals))
    sent = events(signals, EVALUATION)
    (span,) = receiver.wait()
    assert {event.trace_id.hex() for event in sent} == {span.trace_id}
    helpful, tone = (attributes(event.attributes) for event in sent)
    assert (helpful["gen_ai.evaluation.name"], helpful["gen_ai.evaluation.score.value"]) == ("helpful", 1.0)
    assert helpful["gen_ai.evaluation.explanation"].startswith("[redacted")
    assert (tone["gen_ai.evaluation.name"], tone["gen_ai.evaluation.score.label"]) == ("tone", "polite")


def test_metadata_only(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """Where no content may leave, an event tells which call it was, and nothing that was said."""
    run_program(
        f"{AGENT}\ntelemetry.shutdown()", tmp_path, receiver, **asked(signals, TELEMETRY_CONTENT="metadata-only")
    )
    (event,) = events(signals, DETAILS)
    assert attributes(event.attributes)["gen_ai.operation.name"] == "chat"
    assert b"408" not in event.SerializeToString()
    assert b"12*34" not in event.SerializeToString()


@pytest.mark.parametrize("off", ["OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT", "OTEL_TRACES_SAMPLER"])
def test_none_is_sent_unless_asked(receiver: Receiver, signals: Signals, tmp_path: Path, off: str) -> None:
    """Log records alone have no events, and a trace that is not sampled has none."""
    settings = asked(signals) | {off: {"OTEL_TRACES_SAMPLER": "always_off"}.get(off, "false")}
    code = f"{AGENT}\nimport logging\nlogging.getLogger('shop').warning('sold out')\ntelemetry.shutdown()"
    run_program(code, tmp_path, receiver, **settings)
    assert "sold out" in [record.body.string_value for record in signals.logs()]
    assert not events(signals, DETAILS)


def test_what_has_no_effect_is_said_once(receiver: Receiver, tmp_path: Path) -> None:
    """Langfuse takes spans only: other signals that are asked for are named at start, and the program runs on."""
    asked_for = ("OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")
    said = run_program(
        "import telemetry\ntelemetry.configure('shop')\nwith telemetry.span('work'): pass\ntelemetry.shutdown()",
        tmp_path,
        receiver,
        **dict.fromkeys(asked_for, "otlp"),
        OTEL_EXPORTER_OTLP_ENDPOINT="",
        LANGFUSE_HOST=receiver.endpoint,
        LANGFUSE_PUBLIC_KEY="pk-lf-1",
        LANGFUSE_SECRET_KEY="sk-lf-1",
    ).stderr
    assert [said.count(f"{name}=otlp has no effect") for name in asked_for] == [1, 1]
    assert [span.name for span in receiver.spans] == ["work"]


@pytest.mark.parametrize("logs", ["otlp", "none", ""])
def test_events_need_log_records(logs: str) -> None:
    """Other instrumentors read the same variable, so it is refused nowhere."""
    settings = Settings.model_validate(
        {"OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT": "true", "OTEL_LOGS_EXPORTER": logs or None}
    )
    (sentence,) = settings.without_effect
    assert "has no effect" in sentence
