"""A graph that nobody runs in a `Turn`: in a request a turn all the same, and found by what its config says."""

import asyncio
from collections.abc import Callable
from threading import Event
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt
from opentelemetry.trace import SpanKind

import telemetry
from telemetry import Turn
from telemetry.testing import Recorded
from tests.processes import serve

CONFIG: Any = {"configurable": {"thread_id": "t-1"}, "metadata": {"user_id": "ada"}}
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
    with serve(app) as url, telemetry.untraced():
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
    with serve(app) as url, telemetry.untraced():
        httpx.get(f"{url}/greet", timeout=60)
        assert done.wait(60)

    # The task's own span is left out: the instrumentation makes it with the tracer of this process's first app.
    (turn,) = [span for span in spans.settled() if span.name == "turn"]
    (server,) = [span for span in spans.settled() if span.kind is SpanKind.SERVER]
    said = turn.attributes or {}
    assert [said[name] for name in ("turn.status", "input.value", "output.value")] == ["completed", "Hi", "Hello"]
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
    assert {(span.attributes or {}).get("user.id") for span in spans.settled()} == {"ada"}


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
