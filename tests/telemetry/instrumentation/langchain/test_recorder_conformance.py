"""The recorder says of every flow what OpenInference says, after `shape`; where it does not, a list says why."""

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from langchain_core.language_models import FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send
from openinference.instrumentation.langchain._tracer import OpenInferenceTracer
from opentelemetry.sdk.trace import ReadableSpan
from pydantic import BaseModel

import telemetry
from app.agents import load
from app.agents.passages import PASSAGES, KeywordRetriever
from app.models.demo_model import DemoError
from app.models.models import load_models
from telemetry.export import formats, otlp
from telemetry.instrumentation.langchain import instrumentor
from telemetry.json_text import parse
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.flawed_agents import TABLE

Flow = Callable[[], Awaitable[None]]
Said = tuple[str, str, dict[str, Any]]

# What may differ, and why; all else has to be equal.
ALLOWED = {
    "input.mime_type": "it says of the same text that it is JSON",
    "metadata": "the recorder writes it tighter; what of it is filterable is compared on its own",
}
# What differs from one run to the next, whoever records it.
_VOLATILE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|call_[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|[0-9a-f]{32}|0x[0-9a-f]{6,}"
)
_TIMES = {
    "tool.duration_ms",
    "langfuse.observation.completion_start_time",
    "output.sha256",
    "exception.stacktrace",
    "python.cpu_s",
    "python.peak_bytes",
}


def agent(key: str, message: Any, *, streamed: bool, then: Any = None) -> Flow:
    """A turn of one of the service's agents, and one that resumes it."""

    async def flow() -> None:
        graph = load(key, load_models("demo"), InMemorySaver(), TABLE)
        config: Any = {"configurable": {"thread_id": "t-1"}}
        for given in filter(None, ({"messages": [HumanMessage(message)]}, then and Command(resume=then))):
            with telemetry.scope(session_id="t-1", user_id="ada", agent=key), telemetry.span("turn"):
                if streamed:
                    async for _ in graph.astream(given, config, stream_mode=["updates", "messages"], subgraphs=True):
                        pass
                else:
                    await graph.ainvoke(given, config)

    return flow


class Answer(BaseModel):
    """A number and what it is of."""

    number: int
    of: str


def scripted(*said: AIMessage) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(said))


async def structured() -> None:
    """A model whose answer is parsed into an object."""
    call = ToolCall(name="Answer", args={"number": 408, "of": "12*34"}, id="c-1", type="tool_call")
    usage: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "input_token_details": {"cache_read": 2}}
    said = AIMessage("", tool_calls=[call], usage_metadata=usage, response_metadata={"finish_reason": "tool_calls"})

    def parsed(message: AIMessage) -> Answer:
        return Answer(**message.tool_calls[0]["args"])

    chain = scripted(said).bind(tools=[{"type": "function", "function": {"name": "Answer"}}]) | RunnableLambda(parsed)
    assert await chain.ainvoke([("system", "Answer."), ("user", "12*34?")]) == Answer(number=408, of="12*34")


async def parallel_tools() -> None:
    """Two tools at once, one of which fails, one of which answers with a message of its own."""

    @tool
    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    @tool
    def break_down(why: str) -> str:
        """Break."""
        raise ValueError(f"because {why}")

    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([add, break_down], handle_tool_errors=True))
    graph.add_edge(START, "tools")
    calls = [
        ToolCall(name="add", args={"a": 1, "b": 2}, id="c-1", type="tool_call"),
        ToolCall(name="break_down", args={"why": "so"}, id="c-2", type="tool_call"),
    ]
    await graph.compile(name="tooling").ainvoke({"messages": [HumanMessage("go"), AIMessage("", tool_calls=calls)]})


async def retrieved() -> None:
    """A search on its own."""
    assert await KeywordRetriever(passages=PASSAGES, limit=2).ainvoke("sampling")


async def piped() -> None:
    """A prompt, a model that streams, a parser."""
    chain = ChatPromptTemplate.from_messages([("system", "Be {how}."), ("user", "{said}")])
    model = scripted(AIMessage("fine, thank you", response_metadata={"model_name": "m-1"}))
    text = [piece async for piece in (chain | model | StrOutputParser()).astream({"how": "brief", "said": "Hi"})]
    assert "".join(text) == "fine, thank you"


async def completed() -> None:
    """A model that completes text."""
    assert await FakeListLLM(responses=["fine"]).ainvoke("How are you?") == "fine"


async def parts() -> None:
    """A message made of parts, an answer made of parts, odd values in the state."""
    asked = HumanMessage([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "u"}}])
    said = AIMessage([{"type": "text", "text": "A cat"}, {"type": "tool_use", "id": "c", "name": "n", "input": {}}])
    await scripted(said).ainvoke([asked, AIMessage("ok\ud800"), HumanMessage("and?", name="ada")])


async def commanded() -> None:
    """A node that goes elsewhere, and one that sends."""

    def first(state: MessagesState) -> Command:
        return Command(update={"messages": [AIMessage("one")]}, goto=[Send("second", state)])

    def second(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"two of {len(state['messages'])}")]}

    graph = StateGraph(MessagesState)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    asked: Any = {"messages": [("user", "go"), {"role": "assistant", "content": "gone"}]}
    graph.compile(name="commanded").invoke(asked)


FLOWS: dict[str, Flow] = {
    **{
        f"{key}, {'streamed' if streamed else 'invoked'}: {message}": agent(key, message, streamed=streamed)
        for key, messages in {
            "chatbot": ["What is 12*34?", "What is 1/0?", "Hello", "/fail", "/fail-after 3 story"],
            "supervisor": ["What is 12*34 and what time is it?", "What is 1/0?"],
            "research": ["Look up sampling and search for baggage.", "Read Trace."],
            "bg-task": ["Work for 0.01 seconds"],
            "coding": ["`1 + 1`"],
            "interrupt": ["Book a table for 4 at 20:00."],
            "broken_node": ["Hello"],
        }.items()
        for message in messages
        for streamed in (False, True)
    },
    "resumed": agent("interrupt", "Book a table for 4.", streamed=True, then="yes"),
    "structured output": structured,
    "parallel tools": parallel_tools,
    "retriever": retrieved,
    "prompt, model, parser": piped,
    "completion": completed,
    "parts": parts,
    "command and send": commanded,
}


async def recorded(langchain: str, flow: Flow) -> list[Said]:
    """What the spans of a flow say after `shape`, each with its way from the root, in the order of both."""
    with recording(Settings.model_construct(langchain=langchain)) as spans:
        with suppress(DemoError, ValueError):
            await flow()
        finished = spans.settled()
    ways = _ways(finished)
    said = [(way, otlp.from_sdk(span)) for way, span in zip(ways, finished, strict=True)]
    return [
        (way, *_plain(formats.langfuse(span))) for way, span in sorted(said, key=lambda each: (each[0], each[1].start))
    ]


def _ways(spans: Sequence[ReadableSpan]) -> list[str]:
    by_id = {span.context.span_id: span for span in spans if span.context}

    def way(span: ReadableSpan) -> str:
        above = by_id.get(span.parent.span_id) if span.parent else None
        return f"{way(above)} / {span.name}" if above else span.name

    return [way(span) for span in spans]


def _plain(span: otlp.Span) -> tuple[str, dict[str, Any]]:
    kept = {key: value for key, value in span.attributes.items() if key not in ALLOWED.keys() | _TIMES}
    plain = {key: _value(value) for key, value in kept.items()}
    return f"{span.kind} {span.status} {_VOLATILE.sub('…', span.message)}", plain


def _value(value: Any) -> Any:
    """A value without what is different each time; of JSON what it says, however it is written."""
    steady = _VOLATILE.sub("…", value) if isinstance(value, str) else value
    return parse(steady) or steady


def differences(wanted: list[Said], found: list[Said]) -> list[str]:
    """What one says and the other does not, a line each."""
    lines = []
    for (way, state, attributes), (_, its_state, its_attributes) in zip(wanted, found, strict=True):
        ours, theirs = {"status": its_state, **its_attributes}, {"status": state, **attributes}
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        lines += [f"{way}: {key}: {theirs.get(key)!r} became {ours.get(key)!r}" for key in different]
    return lines


@pytest.mark.parametrize("name", FLOWS)
async def test_the_recorder_says_what_openinference_says(name: str) -> None:
    """Tree, kinds, input, output, model, usage, tool calls and status are equal, span by span."""
    wanted = await recorded("openinference", FLOWS[name])
    found = await recorded("recorder", FLOWS[name])

    assert [way for way, _, _ in found] == [way for way, _, _ in wanted]
    assert differences(wanted, found) == []
    assert any("langfuse.observation.output" in attributes for _, _, attributes in found) or "fail" in name


# OpenInference writes what a node sends as Python's repr, and a message outside of a state in LangChain's own shape.
_READS_BETTER = ("supervisor", "structured", "prompt", "command", "/fail")
_CONTENT = ("langfuse.observation.input", "langfuse.observation.output", "llm.", "retrieval.")


class Untouched(OpenInferenceTracer):
    """OpenInference's tracer as it is; it ends no runs for a turn."""

    def end_runs(self, *_: Any, **__: Any) -> None: ...


def untouched(provider: Any, settings: Settings) -> Any:
    tracer: Any = instrumentor._openinference(provider, settings)
    tracer.__class__ = Untouched
    return tracer


@pytest.mark.parametrize("name", [name for name in FLOWS if not any(word in name for word in _READS_BETTER)])
async def test_what_is_saved_is_not_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenInference's own tracer, which serialises everything everywhere, says no more of any span after `shape`.

    It has no names of a tool's arguments, and does not know which messages a node has written itself.
    """
    monkeypatch.setitem(instrumentor._HANDLERS, "untouched", untouched)
    monkeypatch.setattr(OpenInferenceTracer, "run_inline", True)

    def content(said: list[Said]) -> list[Any]:
        # The root is the program's own span, which only ours give the question and the answer.
        return [
            (way, {key: _unnamed(key, value) for key, value in kept.items() if key.startswith(_CONTENT)})
            for way, _, kept in said
            if way != "turn"
        ]

    ours, theirs = content(await recorded("recorder", FLOWS[name])), content(await recorded("untouched", FLOWS[name]))
    assert [way for way, _ in ours] == [way for way, _ in theirs]
    for (way, our_content), (_, their_content) in zip(ours, theirs, strict=True):
        assert (way, {key: our_content.get(key) for key in their_content}) == (way, their_content)


def _unnamed(key: str, value: Any) -> Any:
    """A tool's only argument without its name."""
    is_argument = key == "langfuse.observation.input" and isinstance(value, dict) and len(value) == 1
    return next(iter(value.values())) if is_argument else value
