"""A graph that nobody runs in a `Turn`: in a request a turn all the same, and found by what its config says."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress
from threading import Event
from typing import Any, TypedDict
from uuid import uuid4

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.testclient import TestClient
from langchain.agents import create_agent
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models import FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt
from opentelemetry.trace import SpanKind

import telemetry
from telemetry import Turn
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare
from telemetry.settings import Settings
from telemetry.testing import Recorded
from tests.processes import serve
from tests.telemetry.langfuse_rules import traces

CONFIG: Any = {"configurable": {"thread_id": "t-1"}, "metadata": {"user_id": "ada"}}
# A model by itself knows nothing of what is configurable.
IN_METADATA: Any = {"metadata": {"user_id": "ada", "session_id": "t-1"}}
ASKED: Any = {"messages": [("user", "Hi")]}
STAMPS = ["session.id", "user.id", "langfuse.trace.name"]

pytestmark = pytest.mark.usefixtures("langchain")  # by either recorder


def graph(node: Callable[..., Any]) -> CompiledStateGraph:
    drawn = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node")
    return drawn.compile(InMemorySaver() if node is ask else None, name="greeter")


async def greet(state: MessagesState) -> dict[str, Any]:
    model = GenericFakeChatModel(messages=iter([AIMessage("Hello")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


async def fail(state: MessagesState) -> dict[str, Any]:
    raise ValueError("no greeting today")


async def ask(state: MessagesState) -> dict[str, Any]:
    return await graph(ask_below).ainvoke(ASKED)


async def ask_below(state: MessagesState) -> dict[str, Any]:
    return {"messages": [interrupt({"question": "Shall I?"})]}


async def wait(state: MessagesState) -> dict[str, Any]:
    with telemetry.span("long work"):
        await asyncio.sleep(60)
    return {}


def request(node: Callable[..., Any]) -> None:
    """A request whose endpoint runs the graph."""
    app = FastAPI()

    @app.get("/greet")
    async def endpoint() -> str:
        async with asyncio.timeout(0.5 if node is wait else 30):
            return (await graph(node).ainvoke(ASKED, CONFIG))["messages"][-1].text

    telemetry.instrument(app)
    with serve(app) as url, telemetry.suppress_instrumentation():
        httpx.get(f"{url}/greet", timeout=60)


def test_a_request_that_runs_a_graph_is_a_turn(spans: Recorded) -> None:
    """The turn has the question and the answer, the request too, and every span the thread and the user."""
    request(greet)

    assert spans.tree(["turn.status", *STAMPS]) == "\n".join(
        [
            "GET /greet SERVER session.id=t-1 user.id=ada langfuse.trace.name=greeter",
            "  turn AGENT turn.status=completed session.id=t-1 user.id=ada langfuse.trace.name=greeter",
            "    greeter session.id=t-1 user.id=ada langfuse.trace.name=greeter",
            "      node session.id=t-1 user.id=ada langfuse.trace.name=greeter",
            "        GenericFakeChatModel LLM session.id=t-1 user.id=ada langfuse.trace.name=greeter",
        ]
    )
    for span in spans.get_finished_spans()[-2:]:
        said = span.attributes or {}
        assert (said["input.value"], said["output.value"]) == ("Hi", "Hello"), span.name


def test_a_background_task_that_runs_a_graph_is_a_turn(spans: Recorded) -> None:
    """What runs once its request is answered is a turn in its trace, with question and answer."""
    app, done = FastAPI(), Event()

    async def later() -> None:
        await graph(greet).ainvoke(ASKED, CONFIG)
        done.set()

    @app.get("/greet")
    def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(later)

    telemetry.instrument(app)
    with serve(app) as url, telemetry.suppress_instrumentation():
        httpx.get(f"{url}/greet", timeout=60)
        assert done.wait(60)

    # The task's own span is left out: the instrumentation makes it with the tracer of this process's first app.
    (turn,) = [span for span in spans.settled() if span.name == "turn"]
    (server,) = [span for span in spans.settled() if span.kind is SpanKind.SERVER]
    said = turn.attributes or {}
    assert [said[name] for name in ("turn.status", "input.value", "output.value")] == ["completed", "Hi", "Hello"]
    assert turn.context
    assert server.context
    assert turn.context.trace_id == server.context.trace_id


def test_a_graph_that_waits(spans: Recorded) -> None:
    """The turn and the request have what a person is asked, once, however deep the asking node lies."""
    request(ask)

    (turn,) = [span for span in spans.settled() if span.name == "turn"]
    (server,) = [span for span in spans.settled() if span.kind is SpanKind.SERVER]
    assert (turn.attributes or {})["turn.status"] == "waiting"
    for span in (turn, server):
        assert (span.attributes or {})["output.value"] == '{"question":"Shall I?"}'


def test_a_graph_that_fails(spans: Recorded) -> None:
    """The turn has failed as the graph has, in one line."""
    request(fail)

    (turn,) = [span for span in spans.settled() if span.name == "turn"]
    assert (turn.attributes or {})["turn.status"] == "failed"
    assert turn.status.description == "ValueError: no greeting today"


def test_a_graph_that_is_cancelled(spans: Recorded) -> None:
    """Every span of it ends, and the turn says so."""
    request(wait)

    (turn,) = [span for span in spans.settled() if span.name == "turn"]
    assert (turn.attributes or {})["turn.status"] == "cancelled"
    assert {"greeter", "node", "long work"} <= {span.name for span in spans.settled()}


async def test_without_a_request(spans: Recorded) -> None:
    """There is no turn; the graph is the root, with the same stamps."""
    await graph(greet).ainvoke(ASKED, CONFIG)

    assert spans.tree().splitlines()[0] == "greeter"
    stamps: list[dict[str, Any]] = [dict(span.attributes or {}) for span in spans.settled()]
    assert {each.get("user.id") for each in stamps} == {"ada"}


@pytest.mark.parametrize("in_span", [False, True], ids=["alone", "in a span of the program"])
@pytest.mark.parametrize(
    ("node", "status"), [(greet, "completed"), (ask, "waiting"), (fail, "failed"), (wait, "cancelled")]
)
async def test_a_run_without_a_request_says_how_it_ended(
    spans: Recorded, node: Callable[..., Any], status: str, *, in_span: bool
) -> None:
    """The outermost run's own span has the status that a turn's span would have, and no other span has one."""
    around = telemetry.span("main") if in_span else nullcontext()
    with around, suppress(ValueError, TimeoutError):
        async with asyncio.timeout(0.5 if node is wait else 30):
            await graph(node).ainvoke(ASKED, CONFIG)

    found = {span.name: (span.attributes or {}).get("turn.status") for span in spans.settled()}
    assert {name: value for name, value in found.items() if value} == {"greeter": status}


async def test_a_tool_without_a_request_has_no_status(spans: Recorded) -> None:
    """It is no turn."""
    await fetch_alone()
    assert [(span.name, (span.attributes or {}).get("turn.status")) for span in spans.settled()] == [("look_up", None)]


async def test_what_the_code_says_wins(spans: Recorded) -> None:
    """A scope around the graph stands above its config, which fills in the rest."""
    with telemetry.scope(user_id="grace", agent="host"):
        await graph(greet).ainvoke(ASKED, CONFIG)

    for span in spans.settled():
        assert [(span.attributes or {}).get(name) for name in STAMPS] == ["t-1", "grace", "host"], span.name


async def test_langfuses_own_names_are_read(spans: Recorded) -> None:
    """Metadata made for Langfuse's callback handler need not be renamed."""
    await graph(greet).ainvoke(ASKED, {"metadata": {"langfuse_session_id": "t-2", "langfuse_user_id": "alan"}})

    for span in spans.settled():
        assert [(span.attributes or {}).get(name) for name in STAMPS] == ["t-2", "alan", "greeter"], span.name


async def test_a_turn_is_not_doubled(spans: Recorded) -> None:
    """Within a `Turn` the graph makes none of its own."""

    async def work(turn: Turn[str]) -> None:
        await graph(greet).ainvoke(ASKED, CONFIG)

    turn = Turn[str]("greeter", run_id=uuid4(), session_id="t-1")
    turn.start(work)
    await turn.ended()

    assert spans.tree().splitlines()[:2] == ["turn AGENT", "  greeter"]


def served(call: Callable[[], Any], path: str = "/ask", url: str = "") -> None:
    """A request whose endpoint awaits this call."""
    app = FastAPI()

    @app.get(path)
    async def endpoint() -> None:
        await call()

    telemetry.instrument(app)
    with TestClient(app) as client:
        client.get(url or path)


def one(spans: Recorded, name: str = "turn") -> dict[str, Any]:
    """The attributes of the only span of this name."""
    (span,) = [span for span in spans.settled() if span.name == name]
    return dict(span.attributes or {})


def root(spans: Recorded) -> dict[str, Any]:
    (span,) = [span for span in spans.settled() if span.parent is None]
    return dict(span.attributes or {})


def says(*texts: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(map(AIMessage, texts)))


PROMPT = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")])


@entrypoint()
async def workflow(question: str) -> str:
    return "Hello"


async def history(_: Any = None) -> Any:
    chain = RunnableWithMessageHistory(says("Hello"), lambda session_id: InMemoryChatMessageHistory())  # noqa: ARG005 - LangChain's name
    await chain.ainvoke([HumanMessage("Hi")], {"configurable": {"session_id": "t-1"}, "metadata": {"user_id": "ada"}})


async def streamed() -> None:
    async for _ in (PROMPT | says("Hello") | StrOutputParser()).astream({"question": "Hi"}, CONFIG):
        pass


async def with_a_span() -> None:
    with telemetry.span("handler"):
        await graph(greet).ainvoke(ASKED, CONFIG)


class Planned(TypedDict):
    input: str
    steps: list[str]
    response: str


def last_message(state: Any) -> Any:
    return state["messages"][-1]


def planner() -> Any:
    def plan(_: Planned) -> Any:
        return {"steps": ["look"], "response": "Hello"}

    drawn: Any = StateGraph(Planned)
    return drawn.add_node("plan", plan).add_edge(START, "plan").compile(name="planner")


RUNS: dict[str, Callable[[], Any]] = {
    "create_agent": lambda: create_agent(says("Hello"), [], name="helper").ainvoke(ASKED, CONFIG),
    "a chain": lambda: (PROMPT | says("Hello") | StrOutputParser()).ainvoke({"question": "Hi"}, CONFIG),
    "a streamed chain": streamed,
    "a model": lambda: says("Hello").ainvoke("Hi", IN_METADATA),
    "a model that completes text": lambda: FakeListLLM(responses=["Hello"]).ainvoke("Hi", IN_METADATA),
    "the functional API": lambda: workflow.ainvoke("Hi", CONFIG),
    "a graph and a parser": lambda: (graph(greet) | RunnableLambda(last_message)).ainvoke(ASKED, CONFIG),
    "a span around": with_a_span,
    "a state with a key input": lambda: planner().ainvoke({"input": "Hi"}, CONFIG),
    "a history of messages": history,
    "a function": lambda: RunnableLambda(lambda _: "Hello").ainvoke("Hi", CONFIG),
}


@pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")
@pytest.mark.parametrize("name", RUNS)
def test_any_outermost_run_is_a_turn(spans: Recorded, name: str) -> None:
    """Turn and request have question, answer, thread and user; every span below has thread and user."""
    served(RUNS[name])

    for said in (one(spans), root(spans)):
        wanted = ("Hi", "Hello", "t-1", "ada")
        assert tuple(said.get(key) for key in ("input.value", "output.value", "session.id", "user.id")) == wanted
    assert one(spans)["turn.status"] == "completed"
    assert {str((span.attributes or {}).get("user.id")) for span in spans.settled() if span.name != "handler"} == {
        "ada"
    }


async def fetch_alone() -> None:
    @tool
    def look_up(word: str) -> str:
        """Look it up."""
        return word

    await look_up.ainvoke({"word": "x"}, CONFIG)


def test_a_tool_alone_is_no_turn(spans: Recorded) -> None:
    """What is called by itself without an agent makes no turn; it has the thread and the user all the same."""
    served(fetch_alone)
    assert spans.tree(["user.id"]) == "GET /ask SERVER user.id=ada\n  look_up TOOL user.id=ada"


async def twice() -> None:
    for question in ("one", "two"):
        await RunnableLambda(str.upper).ainvoke(question, CONFIG)


def test_several_turns_of_a_request_stand_side_by_side(spans: Recorded) -> None:
    """Each has its own question and answer; the request has the first question and the last answer."""
    served(twice)
    turns = [span for span in spans.settled() if span.name == "turn"]
    said = [((span.attributes or {})["input.value"], (span.attributes or {})["output.value"]) for span in turns]
    assert said == [("one", "ONE"), ("two", "TWO")]
    assert (root(spans)["input.value"], root(spans)["output.value"]) == ("one", "TWO")


def test_each_message_of_a_websocket_is_a_trace(spans: Recorded) -> None:
    """Turns over one connection are traces of their own, each with its question, its thread, and a link."""
    app = FastAPI()

    @app.websocket("/ask")
    async def ask_all(socket: WebSocket) -> None:
        await socket.accept()
        for thread in ("t-1", "t-2"):
            asked: Any = {"messages": [("user", await socket.receive_text())]}
            await graph(greet).ainvoke(asked, {"configurable": {"thread_id": thread}})
            await socket.send_text("done")

    telemetry.instrument(app)
    with TestClient(app) as client, client.websocket_connect("/ask") as socket:
        for question in ("one", "two"):
            socket.send_text(question)
            socket.receive_text()

    finished = spans.settled()
    (connection,) = [span for span in finished if span.kind is SpanKind.SERVER]
    turns = [span for span in finished if span.name == "turn"]
    assert [(span.attributes or {})["input.value"] for span in turns] == ["one", "two"]
    assert [(span.attributes or {})["session.id"] for span in turns] == ["t-1", "t-2"]
    assert len({span.context.trace_id for span in (*turns, connection) if span.context}) == 3
    assert all(span.parent is None for span in turns)
    assert [link.context.span_id for turn in turns for link in turn.links] == [connection.context.span_id] * 2  # pyright: ignore[reportOptionalMemberAccess] - it was started
    for turn in turns:
        below = [s for s in finished if s.context and turn.context and s.context.trace_id == turn.context.trace_id]
        assert {span.name for span in below} >= {"turn", "greeter", "node", "GenericFakeChatModel"}
    assert "session.id" not in (connection.attributes or {})


SOURCES: list[tuple[dict[str, Any], tuple[str | None, str | None]]] = [
    ({"configurable": {"thread_id": "t", "user_id": "u", "session_id": "s"}}, ("s", "u")),
    ({"configurable": {"thread_id": "t"}, "metadata": {"langfuse_session_id": "s"}}, ("s", None)),
    ({"configurable": {"thread_id": "t"}, "metadata": {"session_id": "s", "langfuse_user_id": "u"}}, ("s", "u")),
    ({"metadata": {"conversation_id": "c", "user_id": 7}}, ("c", "7")),
    ({"configurable": {"thread_id": "t", "user_id": ["no", "text"]}}, ("t", None)),
]


@pytest.mark.parametrize(("config", "wanted"), SOURCES)
def test_where_session_and_user_come_from(spans: Recorded, config: Any, wanted: tuple[str | None, str | None]) -> None:
    """They are read from where people put them, and what is named so beats what only serves as such."""
    served(lambda: graph(greet).ainvoke(ASKED, config))
    for span in spans.settled():
        said = span.attributes or {}
        assert (said.get("session.id"), said.get("user.id")) == wanted, span.name


async def test_nothing_of_one_run_is_left_for_the_next(spans: Recorded) -> None:
    """The user of one run in a task is not that of the next, which names none."""
    await RunnableLambda(str.upper, name="first").ainvoke("a", {"configurable": {"user_id": "ada"}})
    await RunnableLambda(str.upper, name="second").ainvoke("b")
    assert spans.tree(["user.id"]) == "first user.id=ada\nsecond"


def test_tags_and_metadata_reach_every_span(spans: Recorded) -> None:
    """They can be filtered by, within bounds; what LangChain and LangGraph add is left out."""
    metadata = {"tenant": "acme", "langfuse_tags": ["x"], "odd": object(), "rank": 0}
    metadata |= {"big": "word " * 1000, "whole": "v" * 1000}
    metadata |= {f"key-{at}": at for at in range(100)}
    tags = ["a", *(f"tag-{at}" for at in range(100))]
    served(lambda: graph(greet).ainvoke(ASKED, {"tags": tags, "metadata": metadata}))

    prefix = "langfuse.trace.metadata."
    for span in spans.settled():
        said: dict[str, Any] = dict(span.attributes or {})
        filed = {key.removeprefix(prefix): value for key, value in said.items() if key.startswith(prefix)}
        assert (filed["tenant"], filed["rank"], filed["whole"]) == ("acme", 0, "…"), span.name
        assert filed["big"] == "word " * 39 + "…"
        assert not {"odd", "langfuse_tags"} & filed.keys()
        assert not [key for key in filed if key.startswith(("ls_", "langgraph_"))]
        assert len(filed) <= 33
        assert said["langfuse.trace.tags"][:3] == ("greeter", "a", "tag-0")
        assert len(said["langfuse.trace.tags"]) == 20


@pytest.mark.parametrize(
    ("call", "path", "url", "name"),
    [
        (lambda: graph_named(None).ainvoke(ASKED), "/{agent_id}/stream", "/researcher/stream", "researcher"),
        (lambda: graph_named(None).ainvoke(ASKED), "/threads/{thread_id}", "/threads/t-1", None),
        (lambda: graph_named(None).ainvoke(ASKED, {"metadata": {"agent_name": "tutor"}}), "/ask", "", "tutor"),
        (lambda: create_agent(says("Hello"), [], name="helper").ainvoke(ASKED), "/ask", "", "helper"),
        (lambda: (graph_named("clerk") | RunnableLambda(str)).ainvoke(ASKED), "/ask", "", "clerk"),
        (lambda: (PROMPT | says("Hello")).with_config(run_name="poet").ainvoke({"question": "Hi"}), "/ask", "", "poet"),
    ],
)
def test_a_trace_is_called_after_its_agent(
    spans: Recorded, call: Callable[[], Any], path: str, url: str, name: str | None
) -> None:
    """By the graph, the config, the path, or the graph in a chain; a class of LangChain's names no trace."""
    served(call, path, url)
    assert (root(spans).get("langfuse.trace.name"), one(spans).get("langfuse.trace.name")) == (name, name)


def graph_named(name: str | None) -> Any:
    return StateGraph(MessagesState).add_node("node", greet).add_edge(START, "node").compile(name=name)


class PlaybackInterrupted(Exception):  # noqa: N818 - a name that looks like an interrupt's
    pass


async def with_fallback() -> None:
    def broken(_: Any) -> str:
        raise PlaybackInterrupted("cut off")

    step = RunnableLambda(broken).with_fallbacks([RunnableLambda(lambda _: "spare answer")])
    await step.ainvoke("Hi")


def test_what_only_looks_like_an_interrupt_asks_nobody(spans: Recorded) -> None:
    """An error of the program's that it handles is no question, whatever its name."""
    served(with_fallback)
    assert (one(spans)["turn.status"], one(spans)["output.value"]) == ("completed", "spare answer")


IMAGE: dict[str, Any] = {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"}
RING = '{"ring":{"x":1,"self":"<dict>"}}'


def half(_: Any) -> dict[str, Any]:
    ring: dict[str, Any] = {"x": 1}
    ring["self"] = ring
    return {"input": "Q \ud83d", "steps": [ring], "response": "A \ud83d"}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: RunnableLambda(half).ainvoke({"input": "Q \ud83d"}), ("Q \ud83d", "A \ud83d")),
        (lambda: says_image().ainvoke([HumanMessage([IMAGE])]), ("[image]", "[image]")),
        (lambda: RunnableLambda(lambda _: {"ring": half(0)["steps"][0]}).ainvoke({"a": 1}), ('{"a":1}', RING)),
    ],
)
def test_odd_values_leave_a_question_and_an_answer(spans: Recorded, call: Any, said: tuple[str, str]) -> None:
    """Half a surrogate, a circle, an image alone: what can be said is said."""
    served(call)
    assert (one(spans)["input.value"], one(spans)["output.value"]) == said


def says_image() -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage([IMAGE])]))


async def test_two_runs_at_once_under_one_id(spans: Recorded) -> None:
    """Every span ends, and each run has its own."""
    run_id = uuid4()

    async def slow(state: MessagesState) -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return await greet(state)

    await asyncio.gather(*[graph(slow).ainvoke(ASKED, {"run_id": run_id}) for _ in range(3)])
    assert sorted(spans.tree().splitlines()).count("greeter") == 3
    assert (spans.open, spans.ended_twice) == ([], [])


def test_a_tool_stays_a_tool(spans: Recorded) -> None:
    """Neither a tool nor a hook of middleware is an agent for its name; a chain is."""

    @tool
    def ask_agent(word: str) -> str:
        """Ask it."""
        return word

    ask_agent.invoke({"word": "x"})
    RunnableLambda(str, name="Limit.before_agent").invoke(1)
    RunnableLambda(str, name="my agent").invoke(1)
    kinds = {span.name: (span.attributes or {})["openinference.span.kind"] for span in spans.settled()}
    assert kinds == {"ask_agent": "TOOL", "Limit.before_agent": "CHAIN", "my agent": "AGENT"}


def test_a_script_that_waits_for_a_person(spans: Recorded) -> None:
    """Without a request, the graph's own span is the root: it shows the question to the person."""

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(interrupt("Really?"))]}

    graph = (
        StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile(InMemorySaver(), name="mailer")
    )
    asked: Any = {"messages": [("user", "Mail Bob")]}
    graph.invoke(asked, {"configurable": {"thread_id": "t-1"}})

    (trace,) = traces(sent for span in spans.settled() for sent in decode(prepare(span, build_stages(Settings()))))
    assert trace.root
    assert trace.root.input == [{"role": "user", "content": "Mail Bob"}]
    assert trace.root.output == "Really?"


def decode(data: bytes) -> list[otlp.Span]:
    return otlp.decode(data, "application/x-protobuf")
