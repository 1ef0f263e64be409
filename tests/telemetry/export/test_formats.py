"""What Langfuse shows of every agent and of every failure, and how it comes to be."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode

import telemetry
from app.client import AgentClient, AgentError
from app.schema import RunEvent, TokenEvent
from telemetry.export import otlp
from telemetry.export.formats.marks import RECORDERS
from telemetry.export.formats.messages import conversation
from telemetry.export.stages import build_stages, prepare
from telemetry.settings import Settings
from telemetry.testing import Receiver, Recorded
from tests.openai_server import OpenAIServer, openai_server
from tests.service import service
from tests.telemetry.langfuse_rules import Observation, Trace, traces, violations
from tests.telemetry.planted import finished

USER, THREAD = "ada", "t-1"


Talk = Callable[..., list[Trace]]


@pytest.fixture
def talk(spans: Recorded, receiver: Receiver, tmp_path: Path) -> Talk:
    """Turns with an agent over a real service; what Langfuse has of each, delivered over a socket."""

    def turns(agent: str, *messages: str, cancel: bool = False, **settings: Any) -> list[Trace]:
        with service(tmp_path, **settings) as url:
            roots = [_turn(AgentClient(url, agent, user_id=USER), agent, message, cancel) for message in messages]
            done = spans.settled()
        _deliver(done, receiver)
        return [trace for trace in traces(receiver.spans) if trace.observations[0].span.trace_id in roots]

    return turns


def _turn(client: AgentClient, agent: str, message: str, cancel: bool) -> str:
    run_id, said = "", list[str]()
    with (
        telemetry.scope(session_id=THREAD, user_id=USER, agent=agent),
        telemetry.span("chat turn", **{"input.value": message}) as root,
    ):
        try:
            for event in client.stream(message, thread_id=THREAD):
                if isinstance(event, RunEvent):
                    run_id = event.run_id
                if isinstance(event, TokenEvent):
                    said.append(event.content)
                    if cancel and len(said) == 3:
                        with telemetry.suppress_instrumentation():
                            client.cancel(run_id)
        except AgentError as error:
            said.append(str(error))
        root.set_attribute("output.value", "".join(said) or "waits")
    return f"{root.get_span_context().trace_id:032x}"


def _deliver(done: Sequence[ReadableSpan], receiver: Receiver) -> None:
    stages = build_stages(Settings())
    body = b"".join(prepare(span, stages) for span in done)
    answer = requests.post(
        f"{receiver.endpoint}/v1/traces", data=body, headers={"content-type": "application/x-protobuf"}, timeout=60
    )
    assert answer.status_code == 200


def _reported(trace: Trace, spans: Recorded) -> list[dict[str, int]]:
    """The usage of each model call as the model reported it, read from the SDK's own spans."""
    ids = {each.span.span_id: each for each in trace.of("generation")}
    raw = [span for span in spans.settled() if span.context and f"{span.context.span_id:016x}" in ids]
    found = []
    for span in raw:
        answer = json.loads(str((span.attributes or {})["output.value"]))
        usage = answer["generations"][0][0]["message"]["kwargs"]["usage_metadata"]
        found.append({"input": usage["input_tokens"], "output": usage["output_tokens"]})
    return found


AGENTS = {
    "plain": ("chatbot", ["Hello"]),
    "tool": ("chatbot", ["What is 12*34?"]),
    "long": ("chatbot", ["Hello", "What is 12*34?", "My name is Ada", "What is my name?"]),
    "supervisor": ("supervisor", ["What is 12*34 and what time is it in Europe/Berlin?"]),
    "interrupt": ("interrupt", ["book a table for 2 at 19:00", "yes"]),
    "research": ("research", ["search for spans and read Nothing"]),
}


@pytest.mark.parametrize("flow", AGENTS)
def test_every_agent_is_shown_whole(flow: str, talk: Talk, spans: Recorded) -> None:
    """Named traces with input and output, users and sessions on every span, chats, usage as the model said it."""
    agent, messages = AGENTS[flow]

    shown = talk(agent, *messages)

    assert len(shown) == len(messages)
    for trace in shown:
        assert violations(trace) == []
        assert trace.name == agent
        used = [each.usage for each in trace.of("generation")]
        assert sorted(map(str, used)) == sorted(map(str, _reported(trace, spans)))


def test_the_rules_find_fault_with_the_plain_stack(talk: Talk, spans: Recorded) -> None:
    """The same turn as the instrumentors leave it breaks rules that the test above holds: the rules can fail."""
    (trace,) = talk("chatbot", "What is 12*34?")
    ids = {each.span.span_id for each in trace.observations}
    plain = [received for span in spans.settled() if (received := otlp.from_sdk(span)).span_id in ids]

    wrong = violations(traces(plain)[0])

    assert violations(trace) == []
    assert any("no message of a chat" in each for each in wrong)


def test_tool_calls_are_recognised(talk: Talk) -> None:
    """A call is the model's output in OpenAI's shape, and the tool has its arguments, its result and its size."""
    (trace,) = talk("chatbot", "What is 12*34?")

    asking, answering = trace.of("generation")
    (call,) = asking.tool_calls
    assert call["function"] == {"name": "calculator", "arguments": '{"expression":"12*34"}'}
    offered = [tool["function"]["name"] for tool in asking.input["tools"]]
    assert offered == ["calculator", "current_time", "list_files", "read_file"]
    assert answering.input["messages"][-1]["tool_call_id"] == call["id"]
    (tool,) = trace.of("tool")
    assert (tool.input, tool.output) == ({"expression": "12*34"}, 408)
    assert _filed(tool) == {
        "langgraph_node": "tools",
        "langgraph_step": 2,
        "tool_call_id": call["id"],
        "bytes": 3,
        "success": True,
    }


def test_a_real_client_is_shown_as_well(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's own client, streaming from a server, makes the same chat with usage and first token."""
    with openai_server() as server:
        _point_at(server, monkeypatch)
        (trace,) = talk("chatbot", "What is 12*34?", MODEL="openai:some-model")

    assert violations(trace) == []
    assert [each.span.attributes["llm.model_name"] for each in trace.of("generation")] == ["some-model"] * 2
    assert len(trace.of("generation")[0].tool_calls) == 1


def _point_at(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)


@pytest.mark.parametrize("message", ["/fail", "/fail-after 3 tell me a story"])
def test_failures_are_one_line(message: str, talk: Talk) -> None:
    """A model that fails leaves one line on each span that failed with it, and a stack without local paths."""
    (trace,) = talk("chatbot", message)

    assert violations(trace) == []
    failed = [each for each in trace.observations if each.level == "ERROR"]
    assert {each.span.name for each in failed} >= {"DemoModel", "model", "chatbot", "turn"}
    assert {each.message.split(":")[0] for each in failed} == {"DemoError"}
    (model,) = trace.of("generation")
    stack = model.span.attributes["exception.stacktrace"]
    assert stack.startswith("Traceback")
    assert 'File "models/demo_model.py", line' in stack
    assert str(Path.cwd()) not in stack
    assert model.span.events == []


def test_a_cancelled_turn_keeps_what_was_said(talk: Talk) -> None:
    """A turn that was stopped shows what the model had said, as a warning and not as an error."""
    (trace,) = talk("chatbot", "Tell me a long story", cancel=True, DEMO_PACE_S=0.1)

    assert violations(trace) == []
    (model,) = trace.of("generation")
    assert model.output["role"] == "assistant"
    assert model.output["content"].startswith("Once there was")
    assert model.level == "WARNING"
    assert [each.span.name for each in trace.observations if each.level == "ERROR"] == []


def test_a_waiting_turn_is_no_failure(talk: Talk) -> None:
    """A tool that asks a person says so, and the turn what it asks; LangGraph's exception is not shown."""
    waiting, answered = talk("interrupt", "book a table for 2 at 19:00", "yes")

    (request,) = [each for each in waiting.observations if each.span.kind == "SERVER"]
    assert request.output["question"] == "Shall I book a table for 2 at 19:00?"
    assert request.output["options"] == ["yes", "no"]

    (tool,) = waiting.of("tool")
    assert (tool.level, tool.message) == ("DEFAULT", "waits for an answer")
    assert tool.span.events == []
    assert answered.of("tool")[0].output.startswith("Booked")


def test_each_text_and_each_call_is_shown_once(talk: Talk) -> None:
    """The root has the question, models their messages, tools what they do; graphs and nodes repeat none of it."""
    first, second = talk("chatbot", "Hello", "What is 12*34?")

    silent = [*second.named("turn"), *second.named("chatbot"), *second.named("model"), *second.named("tools")]
    assert [(each.input, each.output) for each in silent] == [(None, None)] * 5
    assert sum(len(each.tool_calls) for each in second.observations) == len(second.of("tool")) == 1
    assert _filed(second.named("model")[-1])["messages"] == 5
    assert len(first.observations) < len(second.observations)


def _filed(each: Observation) -> dict[str, Any]:
    prefix = "langfuse.observation.metadata."
    return {k.removeprefix(prefix): v for k, v in each.span.attributes.items() if k.startswith(prefix)}


def shaped(span: ReadableSpan, shape: str = "langfuse") -> otlp.Span:
    """The span as it arrives in this shape."""
    stages = build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape}))
    (arrived,) = otlp.decode(prepare(span, stages), "application/x-protobuf")
    return arrived


def test_plain_names_are_not_written() -> None:
    """What somebody calls `model` or `output` is no field of Langfuse's."""
    arrived = shaped(finished(attributes={"model": "T", "input": "a", "output": "b", "prompt": "c", "events": "d"}))

    assert arrived.attributes.keys().isdisjoint({"model", "input", "output", "prompt", "events"})
    assert arrived.attributes["span.model"] == "T"


def test_openinference_keeps_its_keys() -> None:
    """The other shape leaves what the instrumentors wrote, and still makes errors readable."""
    given = {"openinference.span.kind": "TOOL", "input.value": '{"a": 1}', "output.value": "b", "metadata": "{}"}
    about = {"exception.type": "x.Odd", "exception.message": "it broke\nbadly", "exception.stacktrace": "s"}
    events = (Event("exception", about, 1),)
    span = finished(attributes=given, status=Status(StatusCode.ERROR, "Odd()Traceback"), events=events)

    arrived = shaped(span, "openinference")

    assert given.items() <= arrived.attributes.items()
    assert arrived.message == "Odd: it broke"
    assert not [key for key in arrived.attributes if key.startswith("langfuse")]


@pytest.mark.parametrize("shape", ["langfuse", "openinference", "genai", "all"])
@pytest.mark.parametrize("recorder", [*RECORDERS, "telemetry"])
def test_a_run_has_its_turn_status_in_every_shape_but_openinferences(recorder: str, shape: str) -> None:
    """A span that OpenInference's instrumentor makes, too, has no attribute of ours there; a turn's own span has it."""
    span = finished(attributes={"turn.status": "waiting"}, instrumentation_scope=InstrumentationScope(recorder))

    left_out = shape == "openinference" and recorder in RECORDERS
    assert shaped(span, shape).attributes.get("turn.status") == (None if left_out else "waiting")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("no such file: '/home/ada/secret plans/x.csv'", "OSError: no such file: '…/secret plans/x.csv'"),
        ("cannot read /tmp/a/b.txt, giving up", "OSError: cannot read …/b.txt, giving up"),
        (f"{Path.cwd()}/app/data.json is gone", "OSError: …/data.json is gone"),
        ("GET /api/public/x on https://a.org/home/x: 404", "OSError: GET /api/public/x on https://a.org/home/x: 404"),
        ("C:\\Users\\ada\\x.csv", "OSError: …/x.csv"),
        ("", "OSError"),
    ],
)
def test_error_lines_have_no_local_paths(said: str, line: str) -> None:
    """Where a file lies on some machine is nobody's business; what it is called may be."""
    about = {"exception.type": "OSError", "exception.message": said, "exception.stacktrace": "s"}
    span = finished(
        status=Status(StatusCode.ERROR, f"OSError: {said}".strip(": ")), events=(Event("exception", about, 1),)
    )

    assert shaped(span).message == line


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"url.full": "http://127.0.0.1:8080/chatbot/stream?x=1"}, "POST 127.0.0.1 /chatbot/stream"),
        ({"url.full": "http://a.org/runs/3f2504e0-4f89-11d3-9a0c-0305e82c3301/cancel"}, "POST a.org /runs/{id}/cancel"),
        (
            {
                "url.full": "http://127.0.0.1:8080/chatbot/stream",
                "service.peer.name": "agent-api",
                "url.template": "/{agent_id}/stream",
            },
            "POST agent-api /{agent_id}/stream",
        ),
        ({"http.url": "http://a.org/v1", "http.method": "POST"}, "POST a.org /v1"),
    ],
)
def test_calls_are_named_after_what_they_call(attributes: dict[str, Any], name: str) -> None:
    """An HTTP call is named by its method, whom it calls and the path; stable names are written."""
    method = {} if "http.method" in attributes else {"http.request.method": "POST"}
    arrived = shaped(finished("POST", kind=SpanKind.CLIENT, attributes={**method, **attributes}))

    assert arrived.name == name
    assert arrived.attributes["http.request.method"] == "POST"
    assert "http.url" not in arrived.attributes


def model_span(asked: Any, answer: Any, **attributes: Any) -> otlp.Span:
    """A model call as OpenInference records it, shaped."""
    given = {"input.value": json.dumps(asked), "output.value": json.dumps(answer), **attributes}
    return shaped(finished("model", attributes={"openinference.span.kind": "LLM", "llm.model_name": "m", **given}))


def constructor(kind: str, **kwargs: Any) -> dict[str, Any]:
    """A message as LangChain dumps it."""
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": kwargs}


def test_parts_and_images_of_a_message() -> None:
    """Parts of a content stay; a call that a provider repeats among them is shown once; images by reference."""
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://a.org/x.png"}},
        {"type": "tool_use", "id": "c", "name": "look", "input": {}},
    ]
    call = {"name": "look", "args": {"at": "x"}, "id": "c", "type": "tool_call"}
    asked = {"messages": [[constructor("HumanMessage", content=parts, type="human")]]}
    answer = {"generations": [[{"message": constructor("AIMessageChunk", content=parts[:1], tool_calls=[call])}]]}

    arrived = Observation(model_span(asked, answer))

    assert arrived.input == [{"role": "user", "content": parts[:2]}]
    assert arrived.output["content"] == parts[:1]
    assert arrived.tool_calls[0]["function"] == {"name": "look", "arguments": '{"at":"x"}'}


def test_cost_parameters_and_usage() -> None:
    """What a provider reports of its price is the cost; parameters go without what is said elsewhere."""
    about = {"token_usage": {"cost": 0.0125}, "finish_reason": "stop"}
    answer = {"generations": [[{"message": constructor("AIMessage", content="x", response_metadata=about)}]]}
    counts = {"llm.token_count.prompt": 9, "llm.token_count.prompt_details.cache_read": 4}
    given = json.dumps({"model": "m", "_type": "x", "temperature": 0.5, "stop": None, "tools": [{"type": "function"}]})

    arrived = model_span(
        {"messages": [[constructor("HumanMessage", content="?")]]},
        answer,
        **counts,
        **{"llm.invocation_parameters": given},
    )

    assert json.loads(arrived.attributes["langfuse.observation.cost_details"]) == {"total": 0.0125}
    assert json.loads(arrived.attributes["llm.invocation_parameters"]) == {"temperature": 0.5}
    assert Observation(arrived).usage == {"input": 5, "input_cached_tokens": 4}


def test_a_plain_language_model() -> None:
    """A model of prompts and completions has no chat: its prompts and its text are shown."""
    arrived = Observation(model_span({"prompts": ["Say x"]}, {"generations": [[{"text": "x"}]]}))

    assert arrived.input == ["Say x"]
    assert arrived.output == {"role": "assistant", "content": "x"}


def test_commands_show_where_they_lead() -> None:
    """A command shows what it sets and where it goes, not its empty fields, and no state a second time."""
    state = {"messages": [{"role": "user", "content": str(at)} for at in range(50)]}
    command = {"graph": None, "update": None, "resume": None, "goto": "Send(node='math', arg={})"}
    given = {"__type": "tool_call_with_context", "tool_call": {"name": "x", "args": {}}, "state": state}

    arrived = Observation(
        shaped(finished(attributes={"input.value": json.dumps(given), "output.value": json.dumps([command])}))
    )

    assert arrived.output == [{"goto": "Send(node='math', arg={})"}]
    assert arrived.input["state"] == {"messages": [{"role": "user", "content": "49"}]}


@pytest.mark.parametrize(
    ("details", "usage"),
    [
        ({}, None),
        ({"prompt_details.cache_read": 30}, {"input": 70, "output": 50, "input_cached_tokens": 30}),
        (
            {"prompt_details.cache_write": 10, "prompt_details.audio": 20, "completion_details.audio": 5},
            {
                "input": 70,
                "output": 45,
                "input_cache_creation": 10,
                "input_audio_tokens": 20,
                "output_audio_tokens": 5,
            },
        ),
        ({"completion_details.reasoning": 60}, {"input": 100, "output": 0, "output_reasoning_tokens": 60}),
    ],
)
def test_tokens_are_told_apart(details: dict[str, int], usage: dict[str, int] | None) -> None:
    """Cached tokens, thoughts and sound are usage of their own, and not counted as input or output once more."""
    counts = {"prompt": 100, "completion": 50, "total": 150, **details}
    span = model_span([], {}, **{f"llm.token_count.{kind}": count for kind, count in counts.items()})
    sent = span.attributes.get("langfuse.observation.usage_details")
    assert (sent and json.loads(sent)) == (usage and {**usage, "total": 150})


@pytest.mark.parametrize(
    ("cost", "details"),
    [
        ({"prompt": 0.25, "completion": 0.5, "total": 0.75}, {"input": 0.25, "output": 0.5, "total": 0.75}),
        ({"total": 0.75}, {"total": 0.75}),
        ({"prompt": 0.25, "completion": 0.5, "total": 0.9}, {"total": 0.9}),
    ],
)
def test_a_price_becomes_a_cost(cost: dict[str, float], details: dict[str, float]) -> None:
    """What a call cost is sent, by kind of tokens where the parts are known."""
    span = model_span([], {}, **{f"llm.cost.{kind}": dollars for kind, dollars in cost.items()})
    assert json.loads(span.attributes["langfuse.observation.cost_details"]) == details


def test_one_message_that_is_a_pair() -> None:
    """LangChain takes a message as a role and its text: one alone is a conversation as well."""
    assert conversation([["user", "Hi"]]) == [{"role": "user", "content": "Hi"}]
    assert conversation([[["user", "Hi"]]]) == [{"role": "user", "content": "Hi"}]
