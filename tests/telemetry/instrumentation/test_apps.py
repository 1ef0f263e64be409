"""An instrumented app ends in order: its turns, its own lifespan, its spans."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request
from flask import Flask
from langgraph.graph import START, StateGraph
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import telemetry
from telemetry import Turn
from telemetry.settings import SettingsError
from telemetry.testing import Receiver, Recorded
from tests.processes import run_code, serve


def make_app(ended: list[str]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        try:
            yield {"database": "open"}
        finally:
            ended.append("database closed")

    app = FastAPI(lifespan=lifespan)

    @app.get("/begin")
    async def begin(request: Request) -> str:
        turn = Turn[str]("slow", run_id=uuid4(), session_id="t-1")

        async def work(_: Turn[str]) -> None:
            await anyio.sleep(60)

        async def settle(turn: Turn[str]) -> None:
            ended.append(f"turn {turn.status}")

        turn.start(work, settle)
        return request.state.database

    telemetry.instrument(app)
    return app


@pytest.mark.parametrize("traced", [True, False])
def test_an_app_ends_in_order(request: pytest.FixtureRequest, traced: bool) -> None:
    """A turn under way ends while all that it needs is still there, with tracing or without; the state is kept."""
    spans: Recorded | None = request.getfixturevalue("spans") if traced else None
    ended: list[str] = []
    with serve(make_app(ended)) as url, telemetry.suppress_instrumentation():
        assert httpx.get(f"{url}/begin", timeout=60).json() == "open"

    assert ended == ["turn cancelled", "database closed"]
    if spans:
        assert {"turn", "GET /begin"} <= {span.name for span in spans.settled()}


def test_tasks_end_with_the_app(spans: Recorded) -> None:
    """A task that is still open is ended, as cancelled, before the last spans are sent."""
    with serve(make_app([])):
        task = telemetry.Task("never finished")
        task.start()

    assert task.result == "cancelled"
    assert "task never finished" in {span.name for span in spans.settled()}


LIVES = """
import os, sys, time, httpx, telemetry
from fastapi import FastAPI
from fastapi.testclient import TestClient

def make():
    app = FastAPI()
    app.get("/{name}")(lambda name: name)
    telemetry.instrument(app)
    return app

telemetry.configure("lives")
"""
ONE_AFTER_ANOTHER = """
app = make()
for name in ("first", "second", "third"):
    with TestClient(app) as client:
        client.get(f"/{name}")
"""
TWO_AT_ONCE = """
with TestClient(make()) as outer:
    with TestClient(make()) as inner:
        inner.get("/first")
    outer.get("/second")
    with telemetry.span("third"):
        pass
"""


@pytest.mark.parametrize("lives", [ONE_AFTER_ANOTHER, TWO_AT_ONCE], ids=["one after another", "two at once"])
def test_an_app_may_be_started_again(lives: str, tmp_path: Path) -> None:
    """The end of a lifespan ends nothing that the next one, or another app of the process, still needs."""
    with Receiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "TELEMETRY_SPOOL_DIR": str(tmp_path)}
        done = run_code(LIVES + lives, env=env)

        assert done.returncode == 0, done.stderr
        found = {str(span.attributes.get("url.path", span.name)).strip("/") for span in receiver.spans}
    assert found == {"first", "second", "third"}


ON_THE_LOOP = """
import asyncio, os, threading
import telemetry
from fastapi import FastAPI
from telemetry.testing import Receiver

asked, released = threading.Event(), threading.Event()

def answer(_):
    asked.set()
    released.wait(60)
    return 200

async def release():
    while not asked.is_set():
        await asyncio.sleep(0.01)
    released.set()

async def main():
    app = FastAPI()
    telemetry.instrument(app)
    releasing = asyncio.create_task(release())
    async with app.router.lifespan_context(app):
        with telemetry.span("last"):
            pass
    print(released.is_set())
    await releasing

with Receiver(answer) as receiver:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
    telemetry.configure("loop")
    asyncio.run(main())
"""


def test_the_end_of_a_lifespan_blocks_no_event_loop(tmp_path: Path) -> None:
    """What else runs on the loop goes on while the last spans are sent; here it is what lets the backend answer."""
    done = run_code(ON_THE_LOOP, env={"TELEMETRY_SPOOL_DIR": str(tmp_path)})

    assert done.stdout == "True\n", done.stderr


async def answer(_: Request) -> PlainTextResponse:
    with telemetry.turn("clerk", input="What is 12*34?") as turn:
        turn.output = "It is 408."
    return PlainTextResponse("It is 408.")


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that knows of no lifespan, as Django's."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await (await answer(Request(scope)))(scope, receive, send)


@pytest.mark.parametrize("host", ["starlette", "bare"])
def test_any_asgi_application(spans: Recorded, host: str) -> None:
    """A request to any ASGI application is one trace with its turn, named by its route where there is one."""
    app = Starlette(routes=[Route("/ask/{name}", answer)]) if host == "starlette" else bare
    with serve(telemetry.instrument(app)) as url, telemetry.suppress_instrumentation():
        assert httpx.get(f"{url}/ask/ada", timeout=60).text == "It is 408."

    route = "/ask/{name}" if host == "starlette" else "/ask/ada"
    assert spans.tree() == f"GET {route} SERVER\n  turn AGENT"
    (root,) = [span for span in spans.settled() if span.parent is None]
    assert root.attributes
    assert (root.attributes["input.value"], root.attributes["output.value"]) == ("What is 12*34?", "It is 408.")


class Shield:
    """A middleware that another library puts around the stack that FastAPI builds, as ddtrace does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = scope["path"].removeprefix("/shop")
        await self.app(scope, receive, send)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_middleware_of_others_around_the_whole_stack(spans: Recorded, when: str) -> None:
    """It is served as before, and a request is still one span."""
    app = FastAPI()
    app.get("/ask/{name}")(lambda name: name)

    def wrap() -> None:
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: Shield(Shield(build()))

    if when == "before":
        wrap()
    telemetry.instrument(app)
    if when == "after":
        wrap()
    with serve(app) as url, telemetry.suppress_instrumentation():
        assert httpx.get(f"{url}/shop/ask/ada", timeout=60).json() == "ada"

    assert spans.tree() == "GET /ask/{name} SERVER"


def test_an_application_that_cannot_be_traced_is_refused_in_a_sentence(spans: Recorded) -> None:
    """The sentence says what to install."""
    with pytest.raises(SettingsError, match="install opentelemetry-instrumentation-flask"):
        telemetry.instrument(Flask("shop"))


@pytest.mark.parametrize("way", ["graph", "turn"])
def test_what_outlives_its_response_ends_with_the_app(
    spans: Recorded, langchain: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A turn that nobody waits for has its question, and says that the service stopped; none of its spans is lost."""
    app, begun, asked = FastAPI(), Event(), {"input": "What is 12*34?"}

    async def wait(state: Any) -> dict[str, str]:
        begun.set()
        await anyio.sleep(60)
        return {}

    async def run() -> None:
        if way == "graph":
            graph: Any = StateGraph(dict)  # pyright: ignore[reportArgumentType] - LangGraph takes any class
            await graph.add_node("wait", wait).add_edge(START, "wait").compile(name="slow").ainvoke(asked)
        else:
            with telemetry.turn("slow", input="What is 12*34?"):
                await wait({})

    @app.get("/ask")
    async def ask() -> None:
        app.state.running = asyncio.ensure_future(run())

    telemetry.instrument(app)
    with serve(app) as url, telemetry.suppress_instrumentation():
        httpx.get(f"{url}/ask", timeout=60)
        assert begun.wait(30)

    (turn,) = [span.attributes or {} for span in spans.settled() if span.name == "turn"]
    assert (turn["turn.status"], turn["input.value"]) == ("cancelled", "What is 12*34?")
    assert turn["langfuse.observation.status_message"] == "cancelled: the service stopped"
    assert "ended span" not in caplog.text
