"""The recorder takes what goes in when it goes in, each message once, and nothing of what is not sampled."""

import json
import threading
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from opentelemetry.trace import get_current_span

import telemetry
from telemetry import json_text
from telemetry.export import formats
from telemetry.export.otlp import from_sdk
from telemetry.export.truncate import SHORTENED
from telemetry.instrumentation.langchain import instrumentor
from telemetry.instrumentation.langchain import serialize as module
from telemetry.instrumentation.langchain.serialize import Serializer
from telemetry.messages_json import MessagesJson
from telemetry.settings import Settings
from telemetry.testing import Recorded, recording

pytestmark = pytest.mark.usefixtures("langchain")


def model(*said: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(AIMessage(each) for each in said))


def given(spans: Recorded, name: str) -> list[str]:
    ordered = sorted((span for span in spans.settled() if span.name == name), key=lambda span: span.start_time or 0)
    return [str((span.attributes or {}).get("input.value")) for span in ordered]


class Keeping(BaseCallbackHandler):
    """Keeps a reference to what a model is given, and looks at it later."""

    run_inline = True

    def __init__(self) -> None:
        self.kept: list[BaseMessage] = []

    def on_chat_model_start(self, serialized: Any, messages: list[list[BaseMessage]], **_: Any) -> None:  # noqa: ARG002 - the base's signature
        self.kept.extend(messages[0])


async def test_references_kept_for_later_lie(spans: Recorded) -> None:
    """A node edits a message in place after the model has seen it: the span says what the model was given."""
    keeping = Keeping()

    async def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        message = state["messages"][-1]
        await model("first").ainvoke([message], config)
        message.content = "edited"
        await model("second").ainvoke([message], config)
        return {"messages": []}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    await graph.compile(name="graph").ainvoke({"messages": [HumanMessage("as it was")]}, {"callbacks": [keeping]})

    assert [message.content for message in keeping.kept] == ["edited", "edited"]
    assert [json.loads(each)[0]["content"] for each in given(spans, "GenericFakeChatModel")] == ["as it was", "edited"]
    assert "as it was" in given(spans, "node")[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content", "other"),
        ("content", [{"type": "text", "text": "other"}]),
        ("tool_calls", [ToolCall(name="other", args={}, id="c", type="tool_call")]),
        ("name", "other"),
    ],
)
def test_what_was_bound_anew_is_serialised_anew(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same message costs nothing the second time, and is serialised again once a field was bound anew."""
    written: list[Any] = []
    monkeypatch.setattr(module, "to_bytes", lambda each: written.append(each) or json_text.written(each))
    content, message = Serializer(), AIMessage("same", id="m-1")

    first = content.message(message)
    again = content.message(AIMessage("same", id="m-1"))
    assert (first.text is again.text, len(written)) == (True, 1)

    setattr(message, name, value)
    assert "other" in content.message(message).text
    assert len(written) == 2


def test_a_part_put_into_a_list_is_seen() -> None:
    """Serializer that is a list of parts may grow in place."""
    content, message = Serializer(), HumanMessage(["one"], id="m-1")
    assert "two" not in content.message(message).text
    message.content.append("two")  # pyright: ignore[reportAttributeAccessIssue] - a list
    assert "two" in content.message(message).text


def test_calls_put_into_a_list_are_seen() -> None:
    """A message may be given its calls in place, one more as well."""
    content, message = Serializer(), AIMessage("same", id="m-1")
    assert "first" not in content.message(message).text
    for name in ("first", "second"):
        message.tool_calls.append(ToolCall(name=name, args={}, id=name, type="tool_call"))
        assert name in content.message(message).text


def test_a_part_edited_in_place_is_seen() -> None:
    """What a program blanks out in a message, or a person corrects in a call, is not shown as it was."""
    content, message = Serializer(), AIMessage([{"type": "text", "text": "private"}], id="m-1")
    message.tool_calls.append(ToolCall(name="send", args={"to": "wrong"}, id="c-1", type="tool_call"))
    assert all(word in content.message(message).text for word in ("private", "wrong"))
    message.content[0]["text"] = "removed"  # pyright: ignore[reportArgumentType, reportIndexIssue] - a list of dicts
    message.tool_calls[0]["args"]["to"] = "right"
    shown = content.message(message).text
    assert ("private" in shown, "wrong" in shown, "right" in shown) == (False, False, True)
    message.tool_calls.clear()
    assert "send" not in content.message(message).text


async def test_a_value_that_breaks_costs_its_span_nothing_else(
    spans: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A span ends, and the program goes on, whatever a value does when it is looked at."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("do not look")

    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert await RunnableLambda(lambda _: {"it": Broken()}, name="node").ainvoke({"given": Broken()})
    assert spans.tree() == "node"


async def test_a_conversation_above_the_budget(langchain: str) -> None:
    """The first message and the last ones stay whole, and how many are between them is said."""
    history = [SystemMessage("Be brief."), *(HumanMessage(f"{at}: {'x' * 200}", id=str(at)) for at in range(100))]
    settings = Settings.model_construct(langchain=langchain, max_value_bytes=5_000)
    with recording(settings) as spans:
        await model("fine").ainvoke(history)
    (span,) = spans.settled()
    said = json.loads(str((span.attributes or {})["input.value"]))

    assert len(str((span.attributes or {})["input.value"])) <= 5_000
    assert (said[0]["content"], said[-1]["content"][:3]) == ("Be brief.", "99:")
    kept = [each for each in said if "left out" not in each["content"]]
    assert said[1]["content"] == f"[… {101 - len(kept)} messages left out …]"
    assert (span.attributes or {})[SHORTENED] > 15_000  # pyright: ignore[reportOperatorIssue] - a number


def test_no_messages_are_an_empty_list() -> None:
    """A model that is given none has an input that is JSON all the same."""
    assert json.loads(Serializer().conversation([])[0]) == []


async def test_levels_above_carry_what_is_new(spans: Recorded) -> None:
    """However long the history, the outermost span holds its last message and its answer, a node's what is its own."""

    async def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [AIMessage("one moment"), await model("fine").ainvoke(state["messages"], config)]}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    history: list[Any] = [HumanMessage(f"number {at}") for at in range(50)]
    await graph.compile(name="graph").ainvoke({"messages": history})

    shown = {span.name: formats.langfuse(from_sdk(span)).attributes for span in spans.settled()}
    outermost, inner = shown["graph"], shown["node"]
    assert json.loads(outermost["langfuse.observation.input"]) == [{"role": "user", "content": "number 49"}]
    assert json.loads(outermost["langfuse.observation.output"]) == [{"role": "assistant", "content": "fine"}]
    assert "langfuse.observation.input" not in inner
    assert json.loads(inner["langfuse.observation.output"]) == [{"role": "assistant", "content": "one moment"}]
    assert {each["langfuse.observation.metadata.messages"] for each in (outermost, inner)} == {50}


async def test_text_is_text_to_every_exporter(spans: Recorded) -> None:
    """What a model was given is complete in the in-memory exporter, as one JSON string."""
    await model("fine").ainvoke([HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Straße")])
    (span,) = spans.settled()
    text = (span.attributes or {})["input.value"]

    assert isinstance(text, MessagesJson)
    assert [each["content"] for each in json.loads(text)] == ["Hi", "Hello", "Straße"]
    assert "".join(text.parts) == text


@pytest.mark.parametrize("langchain", ["openinference", "recorder"])
async def test_nothing_is_done_for_what_is_not_sampled(langchain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled out, no handler is attached anywhere in the turn, nothing is serialised and no thread starts."""

    def refuse(*_: Any) -> bytes:
        raise AssertionError("something was serialised")

    handlers: list[Any] = []

    async def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        manager = config.get("callbacks")
        handlers.extend(manager.handlers if isinstance(manager, CallbackManager) else getattr(manager, "handlers", []))
        assert get_current_span().get_span_context().is_valid
        return {"messages": [await model("fine").ainvoke(state["messages"], config)]}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    compiled = graph.compile(name="graph")
    settings = Settings.model_construct(langchain=langchain, sampling_rate=0.0)
    with recording(settings) as spans:
        monkeypatch.setattr(module, "to_bytes", refuse)
        monkeypatch.setattr(json_text, "to_json", refuse)
        with telemetry.span("turn"):
            await compiled.ainvoke({"messages": [HumanMessage("Hi")]})
        assert not [each.name for each in threading.enumerate() if each.name.startswith("telemetry")]
    assert (handlers, list(spans.get_finished_spans())) == ([], [])


async def test_nothing_is_attached_with_tracing_off() -> None:
    """Without a pipeline LangChain finds nobody to tell, even after there was one."""
    with recording():
        pass
    managers: list[Any] = []

    def node(_: Any, config: RunnableConfig) -> None:
        managers.append(config.get("callbacks"))

    await RunnableLambda(node).ainvoke(1)
    assert [each.handlers for each in managers] == [[]]
    assert instrumentor._HandlerVariable().get() is None


async def test_what_is_late_is_ignored(spans: Recorded) -> None:
    """The end of a run that is over, told by a thread that nobody could stop, changes nothing."""
    handler: Any = None

    def node(_: Any, config: RunnableConfig) -> None:
        nonlocal handler
        manager: Any = config["callbacks"]  # pyright: ignore[reportTypedDictNotRequiredAccess] - there is one
        handler, run_id = manager.handlers[0], manager.parent_run_id
        handler.end_runs([run_id], cancelled=True, abandoned=True)
        handler.on_chain_end({"late": 1}, run_id=run_id)
        handler.on_chain_error(ValueError("late"), run_id=run_id)

    await RunnableLambda(node, name="node").ainvoke(1)
    assert spans.tree(["cancelled", "abandoned", "output.value"]) == "node cancelled=True abandoned=True"
    assert not spans.ended_twice


async def test_what_openinference_hides_stays_hidden(langchain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenInference's own switches hold for every exporter, whoever records."""
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "true")
    monkeypatch.setenv("OPENINFERENCE_HIDE_OUTPUT_MESSAGES", "true")
    with recording(Settings.model_construct(langchain=langchain)) as spans:
        await model("fine").ainvoke([HumanMessage("a secret")])
    (span,) = spans.settled()
    attributes = dict(span.attributes or {})

    assert "a secret" not in str(attributes)
    assert attributes["input.value"] == "__REDACTED__"
    assert not [key for key in attributes if key.startswith("llm.output_messages")]
