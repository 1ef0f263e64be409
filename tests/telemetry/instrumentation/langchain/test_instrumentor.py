"""Whatever a node, an edge, a tool or a task does hangs under its span."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from operator import add
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from fastapi import FastAPI, Request
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from telemetry.testing import Recorded
from tests.processes import serve

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.usefixtures("langchain")


class State(TypedDict):
    done: Annotated[list[str], add]


class Addresses:
    """Where the probes call; a server that notes the headers it was sent."""

    url = ""
    headers: list[dict[str, str]] = []  # noqa: RUF012 - emptied by the fixture


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    app = FastAPI()

    @app.get("/{name}")
    async def note(name: str, request: Request) -> str:
        Addresses.headers.append(dict(request.headers))
        return name

    with serve(app) as Addresses.url:
        yield


@pytest.fixture(autouse=True)
def noted(server: None) -> None:
    Addresses.headers.clear()


def probe(name: str) -> None:
    """A span, an event and an HTTP call, all of this name."""
    telemetry.event(f"event of {name}")
    with telemetry.span(f"span of {name}"):
        logger.warning("log of %s", name)
    httpx.get(f"{Addresses.url}/{name}", verify=False)


async def aprobe(name: str) -> None:
    """As `probe`, and from a task and a thread of its own, too."""
    with telemetry.span(f"span of {name}"):
        await asyncio.sleep(0)
    async with httpx.AsyncClient(verify=False) as http:
        await http.get(f"{Addresses.url}/{name}")
    await asyncio.create_task(_beside(name))
    await asyncio.to_thread(probe, name)
    with ThreadPoolExecutor() as pool:
        await asyncio.wrap_future(pool.submit(telemetry.with_current_context(probe), name))


async def _beside(name: str) -> None:
    telemetry.event(f"task of {name}")


@tool
def sync_tool() -> str:
    """Probe."""
    probe("sync_tool")
    return "done"


@tool
async def async_tool() -> str:
    """Probe."""
    await aprobe("async_tool")
    return "done"


def sync_node(state: State) -> State:
    probe("sync_node")
    return {"done": ["sync_node"]}


async def async_node(state: State) -> State:
    await aprobe("async_node")
    return {"done": ["async_node"]}


def edge(state: State) -> list[Send] | str:
    probe("edge")
    return [Send("sent", {"done": []}), Send("sent", {"done": []})]


def sent(state: State) -> State:
    probe("sent")
    return {"done": ["sent"]}


def silent(state: State) -> State:
    return {"done": []}


def inner(state: State) -> State:
    probe("inner")
    return {"done": ["inner"]}


def call_tools(state: State) -> State:
    return {"done": _names(toolbox(sync_tool).invoke(_calls(sync_tool)))}


async def acall_tools(state: State) -> State:
    return {"done": _names(await toolbox(sync_tool, async_tool).ainvoke(_calls(sync_tool, async_tool)))}


def _calls(*tools: BaseTool) -> MessagesState:
    calls = [ToolCall(name=known.name, args={}, id=known.name, type="tool_call") for known in tools]
    return {"messages": [HumanMessage("go"), AIMessage("", tool_calls=calls)]}


def _names(answers: dict[str, Any]) -> list[str]:
    return [answer.name for answer in answers["messages"]]


def toolbox(*tools: BaseTool) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "tools")
    return graph.compile(name="toolbox")


def build(*, sync: bool) -> Any:
    """A graph with every place that code can stand in; without the async ones where it is run sync."""
    below = StateGraph(State)
    below.add_node("inner", inner)
    below.add_edge(START, "inner")
    graph = StateGraph(State)
    graph.add_node("sync_node", sync_node)
    graph.add_node("async_node", silent if sync else async_node)
    copied: Any = RunnableLambda(dict)
    graph.add_node("piped", RunnableLambda(piped) | copied)
    graph.add_node("sent", sent)
    graph.add_node("subgraph", below.compile(name="subgraph"))
    graph.add_node("call_tools", call_tools if sync else acall_tools)
    graph.add_edge(START, "sync_node")
    graph.add_edge("sync_node", "async_node")
    graph.add_edge("async_node", "piped")
    graph.add_conditional_edges("piped", edge, ["sent"])
    graph.add_edge("sent", "subgraph")
    graph.add_edge("subgraph", "call_tools")
    return graph.compile(name="probes")


def piped(state: State) -> State:
    probe("piped")
    return {"done": ["piped"]}


async def ainvoke(graph: Any) -> None:
    await graph.ainvoke({"done": []})


async def astream(graph: Any) -> None:
    async for _ in graph.astream({"done": []}, stream_mode=["updates", "messages"], subgraphs=True):
        pass


async def astream_events(graph: Any) -> None:
    async for _ in graph.astream_events({"done": []}, version="v2"):
        pass


async def invoke(graph: Any) -> None:
    graph.invoke({"done": []})


async def stream(graph: Any) -> None:
    for _ in graph.stream({"done": []}):
        pass


def owner_of(span: ReadableSpan, spans: Recorded) -> str:
    """The name of the nearest span above that is not the probes' own."""
    by_id = {each.context.span_id: each for each in spans.get_finished_spans() if each.context}
    above = by_id.get(span.parent.span_id) if span.parent else None
    while above and above.name.startswith(("span of ", "GET")):
        above = by_id.get(above.parent.span_id) if above.parent else None
    return above.name if above else "nobody"


def misplaced(spans: Recorded) -> list[str]:
    """Every probe that does not hang under the place it was made in."""
    wrong = []
    for span in spans.settled():
        _, _, place = span.name.partition(" of ")
        if span.name.startswith("GET"):
            place = str((span.attributes or {})["url.full"]).rsplit("/", 1)[1]
        if place and owner_of(span, spans) != place:
            wrong.append(f"{span.name} of {place} under {owner_of(span, spans)}")
    return wrong


@pytest.mark.parametrize("run", [ainvoke, astream, astream_events, invoke, stream])
async def test_what_is_done_hangs_under_its_place(
    spans: Recorded, caplog: pytest.LogCaptureFixture, run: Callable[[Any], Any]
) -> None:
    """Spans, events and HTTP calls of nodes, edges, tools, subgraphs, tasks, threads: all under their own span."""
    with telemetry.span("turn"):
        await run(build(sync=run in (invoke, stream)))

    assert misplaced(spans) == []
    found = {span.name for span in spans.settled()}
    places = ["sync_node", "edge", "sent", "inner", "piped", "sync_tool"]
    places += [] if run in (invoke, stream) else ["async_node", "async_tool"]
    assert {f"event of {place}" for place in places} <= found
    assert len({span.context.trace_id for span in spans.settled() if span.context}) == 1
    assert not [record for record in caplog.records if "detach" in record.getMessage()]


async def test_log_records_say_their_trace(spans: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """A record made in a node carries the ids of its trace and of the span it was made in."""
    with telemetry.span("turn"):
        await build(sync=False).ainvoke({"done": []})
    logger.warning("outside")

    ids = {f"{span.context.span_id:016x}": span.name for span in spans.settled() if span.context}
    (trace,) = {f"{span.context.trace_id:032x}" for span in spans.settled() if span.context}
    inside = [record for record in caplog.records if record.message.startswith("log of ")]
    assert {record.__dict__["otelTraceID"] for record in inside} == {trace}
    assert {(ids[record.__dict__["otelSpanID"]], record.message) for record in inside} >= {
        ("span of sync_node", "log of sync_node"),
        ("span of async_tool", "log of async_tool"),
    }
    assert caplog.records[-1].__dict__["otelTraceID"] == "0"


async def test_tasks_of_the_functional_api(spans: Recorded) -> None:
    """What a task does hangs under the task, what the workflow does under the workflow."""

    @task
    async def atask(number: int) -> int:
        await aprobe("atask")
        return number + 1

    @task
    def stask(number: int) -> int:
        probe("stask")
        return number + 1

    @entrypoint()
    async def workflow(number: int) -> int:
        probe("workflow")
        first = await asyncio.gather(atask(number), atask(number))
        return sum(first) + await stask(number)

    assert await workflow.ainvoke(1) == 6
    assert misplaced(spans) == []
    assert sum(span.name == "task of atask" for span in spans.settled()) == 2


async def test_a_pool_without_carry_starts_a_trace(spans: Recorded) -> None:
    """`carry` keeps a plain pool in the trace and in the turn's sampling; without it the work is on its own."""

    def node(state: State) -> State:
        with ThreadPoolExecutor() as pool:
            pool.submit(telemetry.event, "lost").result()
            pool.submit(telemetry.with_current_context(telemetry.event), "carried").result()
        return {"done": ["node"]}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    await graph.compile(name="graph").ainvoke({"done": []})

    assert spans.tree() == "graph\n  node\n    carried\nlost"


async def test_nothing_of_the_turn_is_in_headers(spans: Recorded) -> None:
    """A host that is not trusted gets no header of ours; a trusted one the traceparent alone, without baggage."""
    with telemetry.scope(session_id="t-1", user_id="ada", agent="probes"), telemetry.span("turn"):
        await build(sync=False).ainvoke({"done": []})

    assert Addresses.headers
    for headers in Addresses.headers:
        assert not {"traceparent", "tracestate", "baggage"} & headers.keys()
        assert not [value for value in headers.values() if value in ("t-1", "ada", "probes")]


@contextmanager
def unbridged() -> Iterator[None]:
    """Take the bridge out, and put it back."""
    from telemetry.instrumentation.langchain import langchain_internals

    modules: list[Any] = [import_module(name) for name in langchain_internals.ENTRANCES]
    wrapped = [module._set_config_context for module in modules]
    for module in modules:
        module._set_config_context = module._set_config_context.__wrapped__
    try:
        yield
    finally:
        for module, function in zip(modules, wrapped, strict=True):
            module._set_config_context = function


async def test_the_probes_see_a_missing_bridge(spans: Recorded) -> None:
    """Without the bridge the probes are misplaced: they would notice if it broke."""
    with unbridged(), telemetry.span("turn"):
        await build(sync=False).ainvoke({"done": []})

    assert misplaced(spans)


async def test_decorators_make_no_span(spans: Recorded) -> None:
    """`traced_node` and `traced_tool` add to the spans that are there."""

    @tool
    @telemetry.traced_tool(team="blue")
    async def look_up(word: str) -> str:
        """Look a word up."""
        return word

    @telemetry.traced_node("reader", stage=1)
    async def read(state: State, config: RunnableConfig) -> State:
        return {"done": [await look_up.ainvoke({"word": "x"}, config)]}

    graph = StateGraph(State)
    graph.add_node("read", read)
    graph.add_edge(START, "read")
    assert await graph.compile(name="graph").ainvoke({"done": []}) == {"done": ["x"]}

    prefix = "langfuse.observation.metadata"
    wanted = [f"{prefix}.{key}" for key in ("node", "stage", "tool", "team")]
    assert spans.tree(wanted).splitlines() == [
        "graph",
        f"  read {prefix}.node=reader {prefix}.stage=1",
        f"    look_up TOOL {prefix}.tool=look_up {prefix}.team=blue",
    ]
