"""A turn of a program that needs neither LangChain nor a `Turn`."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from langchain_core.runnables import RunnableLambda

import telemetry
from telemetry.testing import Recorded

ABOUT: Any = {"input": "Hi", "session_id": "t-1", "user_id": "ada", "tags": ["beta"], "metadata": {"tenant": "acme"}}
SHOWN = ["turn.status", "input.value", "output.value", "session.id", "user.id", "langfuse.trace.name"]


def test_a_turn_has_question_answer_and_outcome(spans: Recorded) -> None:
    """Its span says all of it, and what happens inside carries what it is found by."""
    with telemetry.turn("support", **ABOUT) as turn, telemetry.span("look up"):
        turn.output = "Hello"

    about = "session.id=t-1 user.id=ada langfuse.trace.name=support"
    assert spans.tree(SHOWN).splitlines() == [
        f"turn AGENT turn.status=completed input.value=Hi output.value=Hello {about}",
        f"  look up {about}",
    ]
    for span in spans.settled():
        said = span.attributes or {}
        assert said["langfuse.trace.tags"] == ("support", "beta")
        assert said["langfuse.trace.metadata.tenant"] == "acme"
    assert turn.status == "completed"


async def test_it_serves_async_with(spans: Recorded) -> None:
    """The same as a context manager of an event loop, with an answer that is no text."""
    async with telemetry.turn("support", input={"q": 1}) as turn:
        await asyncio.sleep(0)
        turn.output = {"a": 2}
    assert spans.tree(SHOWN[:3]) == 'turn AGENT turn.status=completed input.value={"q":1} output.value={"a":2}'


@pytest.mark.parametrize(("error", "status"), [(ValueError, "failed"), (asyncio.CancelledError, "cancelled")])
def test_what_ends_it_is_raised(spans: Recorded, error: type[BaseException], status: str) -> None:
    """An error fails the turn and a cancellation cancels it; both reach the caller."""
    turn = telemetry.turn("support", input="Hi")
    with pytest.raises(error), turn:
        raise error("no answer")
    (span,) = spans.settled()
    assert (turn.status, (span.attributes or {})["turn.status"]) == (status, status)
    assert span.status.is_ok is (status != "failed")


def test_it_may_wait_for_a_person(spans: Recorded) -> None:
    """What a person is asked stands below the answer so far."""
    with telemetry.turn("support", input="Book it") as turn:
        turn.output = "One moment."
        turn.ask({"question": "Shall I?"})
    assert spans.tree(SHOWN[:1]) == "turn AGENT turn.status=waiting"
    assert (spans.settled()[0].attributes or {})["output.value"] == 'One moment.\n\n{"question":"Shall I?"}'


@pytest.mark.parametrize("langchain", ["openinference", "recorder"])
def test_a_run_within_makes_no_turn_of_its_own(spans: Recorded, langchain: str) -> None:
    """LangChain's runs are part of it."""
    with telemetry.turn("support", input="Hi", user_id="ada"):
        RunnableLambda(str.upper, name="shout").invoke("x", {"metadata": {"user_id": "other"}})
    assert spans.tree(["user.id"]) == "turn AGENT user.id=ada\n  shout user.id=ada"


def test_the_request_around_has_question_and_answer(spans: Recorded) -> None:
    """The root of the trace is shown by a backend: it has them too, and each message of a WebSocket its own trace."""
    app = FastAPI()

    @app.get("/ask")
    async def ask() -> None:
        async with telemetry.turn("support", input="Hi", session_id="t-1") as turn:
            turn.output = "Hello"

    @app.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        for at in range(2):
            with telemetry.turn("support", input=await socket.receive_text(), session_id=f"s-{at}") as turn:
                turn.output = "fine"
            await socket.send_text("done")

    telemetry.instrument(app)
    with TestClient(app) as client:
        client.get("/ask")
        with client.websocket_connect("/talk") as socket:
            for text in ("one", "two"):
                socket.send_text(text)
                socket.receive_text()
    finished = spans.settled()
    (request,) = [span for span in finished if span.name == "GET /ask"]
    said = request.attributes or {}
    assert [said[name] for name in ("input.value", "output.value", "session.id")] == ["Hi", "Hello", "t-1"]
    turns = [span for span in finished if span.name == "turn"]
    assert len({span.context.trace_id for span in turns if span.context}) == 3
    assert [(span.attributes or {})["session.id"] for span in turns] == ["t-1", "s-0", "s-1"]
    assert [len(span.links) for span in turns] == [0, 1, 1]


def test_it_works_with_tracing_off() -> None:
    """Nothing is recorded, and the program goes on as before."""
    with telemetry.turn("support", input="Hi") as turn:
        turn.output = "Hello"
    assert (turn.trace, turn.status) == (None, "completed")


async def test_turns_side_by_side(spans: Recorded) -> None:
    """Turns of concurrent tasks share nothing."""

    async def one(user: str) -> None:
        async with telemetry.turn("support", input=user, user_id=user) as turn:
            await asyncio.sleep(0.01)
            with telemetry.span("work"):
                turn.output = user

    await asyncio.gather(*[one(f"user-{at}") for at in range(10)])
    finished = spans.settled()
    assert len({span.context.trace_id for span in finished if span.context}) == 10
    for trace_id in {span.context.trace_id for span in finished if span.context}:
        of_it = [span for span in finished if span.context and span.context.trace_id == trace_id]
        assert len({str((span.attributes or {})["user.id"]) for span in of_it}) == 1
