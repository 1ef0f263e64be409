"""A thread stays usable, however its last turn ended."""

import asyncio
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

import telemetry
from app.client import AgentClient, AgentError, Failed, Refused
from app.messages import CANCELLED
from app.schema import ChatMessage, EndEvent, ErrorEvent, InterruptEvent, MessageEvent, RunEvent, TokenEvent
from telemetry.testing import Recorded
from tests.flawed_agents import TABLE, endless
from tests.openai_server import OpenAIServer, openai_server
from tests.processes import free_port, start, until
from tests.service import service

SUM = "What is 12*34?"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """A model server that refuses a thread with an open tool call."""
    with openai_server() as server:
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


@pytest.fixture
def url(spans: Recorded, provider: OpenAIServer, tmp_path: Path) -> Iterator[str]:
    with service(tmp_path, TABLE, MODEL="openai:gpt-loopback", TURN_TIMEOUT_S=60) as address:
        yield address


def until_tool(client: AgentClient, thread_id: str = "t-1") -> Iterator[object]:
    """The events of a turn, up to its tool call."""
    for event in client.stream(SUM, thread_id=thread_id):
        yield event
        if isinstance(event, MessageEvent) and event.content.tool_calls:
            return


def types(messages: list[ChatMessage]) -> list[str]:
    return [message.type for message in messages]


def goes_on(url: str, spans: Recorded, thread_id: str = "t-1") -> ChatMessage:
    """The answer of the thread's next turn, by an agent whose tools work."""
    spans.settled(60)
    return AgentClient(url, "chatbot").invoke("Hello again", thread_id=thread_id)


@pytest.mark.parametrize("agent", ["slow", "stubborn", "threaded"])
def test_after_a_disconnect_in_a_tool(url: str, spans: Recorded, agent: str) -> None:
    """The open tool call is answered as cancelled, so that a strict provider takes the next turn."""
    client = AgentClient(url, agent)
    list(until_tool(client))

    assert goes_on(url, spans).content
    history = client.get_history("t-1").messages
    assert types(history) == ["human", "ai", "tool", "human", "ai"]
    assert history[2].content == CANCELLED
    assert spans.ended_twice == []


@pytest.mark.parametrize("agent", ["slow", "stubborn", "threaded"])
def test_after_a_cancel_in_a_tool(url: str, spans: Recorded, agent: str) -> None:
    """The stream ends at once, also where the tool cannot be stopped; cancelling twice is the same as once."""
    client, told, ended = AgentClient(url, agent), [], 0.0
    with endless():
        for event in client.stream(SUM, thread_id="t-1"):
            told.append(event)
            if isinstance(event, MessageEvent) and event.content.tool_calls:
                client.cancel(told[0].run_id)
                client.cancel(told[0].run_id)
                ended = time.monotonic()
        took = time.monotonic() - ended

    assert isinstance(told[-1], EndEvent)
    assert told[-1].status == "cancelled"
    assert took < 30, "the stream ends long before the tool"
    assert goes_on(url, spans).content


def test_after_a_timeout_in_a_tool(provider: OpenAIServer, spans: Recorded, tmp_path: Path) -> None:
    """A turn that takes too long is an error with the trace id; the thread goes on."""
    with service(tmp_path, TABLE, MODEL="openai:gpt-loopback", TURN_TIMEOUT_S=1) as address:
        *_, error, end = AgentClient(address, "slow").stream(SUM, thread_id="t-1")
        assert isinstance(error, ErrorEvent)
        assert isinstance(end, EndEvent)
        assert (error.error, end.status) == ("TimeoutError", "failed")
        assert error.trace_id
    with service(tmp_path, TABLE, MODEL="openai:gpt-loopback") as address:
        assert goes_on(address, spans).content


@pytest.mark.parametrize("message", ["/fail", "/fail-after 3 tell me a story"])
def test_after_a_model_error(spans: Recorded, tmp_path: Path, message: str) -> None:
    """What was said before the model failed stands in the history as stopped."""
    with service(tmp_path, TABLE) as address:
        client = AgentClient(address, "chatbot")
        with pytest.raises(Failed, match="DemoError"):
            client.invoke(message, thread_id="t-1")
        assert goes_on(address, spans).content
        history = client.get_history("t-1").messages

    partial = [message for message in history if message.response_metadata.get("finish_reason") == "stopped"]
    assert [message.content for message in partial] == (["Once there was "] if "story" in message else [])
    assert types(history) == ["human", *["ai"] * len(partial), "human", "ai"]


def test_after_a_node_error(spans: Recorded, tmp_path: Path) -> None:
    """A node that breaks is a typed error, and what came before it is kept."""
    with service(tmp_path, TABLE) as address:
        client = AgentClient(address, "broken_node")
        events = list(client.stream("Hello", thread_id="t-1"))
        assert goes_on(address, spans).content
        assert types(client.get_history("t-1").messages) == ["human", "ai", "human", "ai"]

    assert isinstance(events[0], RunEvent)
    assert events[-2] == ErrorEvent(
        error="ValueError", message="ValueError: the node is broken", trace_id=events[0].trace_id
    )


async def test_the_partial_answer_is_kept(spans: Recorded, tmp_path: Path) -> None:
    """A reader who leaves after 5 of 50 words pays for at most 8; model span and history have what was said."""
    with service(tmp_path, DEMO_PACE_S=0.5) as address:
        client, tokens = AgentClient(address, "chatbot"), 0
        events: AsyncIterator = client.astream("Tell me a story of 50 words", thread_id="t-1")
        async for event in events:
            tokens += isinstance(event, TokenEvent)
            if tokens == 5:
                break
        await events.aclose()  # pyright: ignore[reportAttributeAccessIssue] - a generator
        await asyncio.to_thread(spans.settled)
        history = (await client.aget_history("t-1")).messages

    (model,) = [span for span in spans.settled() if span.name == "DemoModel"]
    assert model.attributes
    said = str(model.attributes["output.value"])
    assert 5 <= len(said.split()) <= 8
    assert (history[-1].content, history[-1].response_metadata["finish_reason"]) == (said, "stopped")
    assert model.attributes["cancelled"] is True


def test_silence_is_bridged(spans: Recorded, tmp_path: Path) -> None:
    """While a tool is silent, comment lines come at least every second, and a disconnect is noticed."""
    with service(tmp_path, TABLE, KEEPALIVE_S=0.1) as address:
        body = {"message": SUM, "thread_id": "t-1"}
        with httpx.stream("POST", f"{address}/slow/stream", json=body) as response:
            comments = (line for line in response.iter_lines() if line.startswith(":"))
            assert [next(comments) for _ in range(3)] == [": alive"] * 3
        (turn,) = [span for span in spans.settled() if span.name == "turn"]

    assert (turn.attributes or {})["turn.cause"] == "disconnect"


def test_two_turns_at_once(url: str, spans: Recorded) -> None:
    """A second turn on a busy thread is a 409 with a sentence; the first one is not disturbed."""
    client = AgentClient(url, "slow")
    events = client.stream(SUM, thread_id="t-1")
    run = next(events)
    assert isinstance(run, RunEvent)
    with pytest.raises(Refused, match="Thread t-1 is already answering") as refused:
        client.invoke("Hello", thread_id="t-1")
    assert refused.value.status == 409
    client.cancel(run.run_id)
    end = list(events)[-1]
    assert isinstance(end, EndEvent)
    assert end.status == "cancelled"
    assert goes_on(url, spans).content


def test_many_turns_at_once_on_one_thread(spans: Recorded, tmp_path: Path) -> None:
    """Of those who come at the same time one gets the thread; nothing that was said is lost."""
    answers: list[str] = []
    refusals: list[int] = []

    def ask(number: int) -> None:
        try:
            answers.append(AgentClient(address, "chatbot").invoke(f"Hello {number}", thread_id="t-1").content)
        except Refused as refused:
            refusals.append(refused.status)

    with service(tmp_path, DEMO_PACE_S=0.02) as address:
        askers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(60)
        history = AgentClient(address, "chatbot").get_history("t-1").messages

    assert answers
    assert set(refusals) <= {409}
    assert types(history) == ["human", "ai"] * len(answers)


def test_after_a_sigkill_in_a_tool(provider: OpenAIServer, tmp_path: Path) -> None:
    """A process that dies in a tool call leaves a thread that the next process goes on with."""
    address = f"http://127.0.0.1:{free_port()}"
    env = {
        "PORT": address.rsplit(":", 1)[1],
        "DATA_DIR": str(tmp_path),
        "MODEL": "openai:gpt-loopback",
        "OPENAI_API_KEY": provider.key,
        "OPENAI_BASE_URL": provider.url,
    }
    argv, client = [sys.executable, "-m", "tests.flawed_agents"], AgentClient(address, "slow")
    with start(argv, env, f"{address}/health") as process, suppress(AgentError):
        for event in client.stream(SUM, thread_id="t-1"):
            if isinstance(event, MessageEvent) and event.content.tool_calls:
                until(lambda: httpx.post(f"{address}/history", json={"thread_id": "t-1"}).json()["messages"])
                process.popen.kill()
    with start(argv, env, f"{address}/health"):
        assert AgentClient(address, "chatbot").invoke("Hello again", thread_id="t-1").content
        history = client.get_history("t-1").messages

    assert types(history) == ["human", "ai", "tool", "human", "ai"]
    assert history[2].content == CANCELLED


def test_a_question_that_failed_is_not_asked_again(spans: Recorded, tmp_path: Path) -> None:
    """Where the resumed run fails, the next message is a message again, not the answer to an old question."""
    with service(tmp_path, TABLE) as address:
        client = AgentClient(address, "asks_in_node")
        assert [type(event) for event in client.stream("Hello", thread_id="t-1")][-2:] == [InterruptEvent, EndEvent]
        with pytest.raises(Failed, match="as you wish"):
            client.invoke("fail", thread_id="t-1")
        asked = client.invoke("Hello", thread_id="t-1")
        answered = client.invoke("yes", thread_id="t-1")

    assert asked.custom_data["interrupt"]["value"] == "Shall I?"
    assert answered.content == "You said yes."


@pytest.mark.parametrize("way", ["chatbot/invoke", "chatbot/stream", "chatbot/runs", "asks_in_node/runs"])
def test_another_agent_takes_no_answer(spans: Recorded, tmp_path: Path, way: str) -> None:
    """What is said to another agent while one waits is refused, and the question stays; its own agent takes it."""
    with service(tmp_path, TABLE) as address:
        client = AgentClient(address, "interrupt")
        client.invoke("Book a table for 4 at 20:00", thread_id="t-1")
        refused = httpx.post(f"{address}/{way}", json={"message": "yes", "thread_id": "t-1"}, timeout=60)
        answer = client.invoke("yes", thread_id="t-1")
        after = AgentClient(address, "chatbot").invoke("Hello", thread_id="t-1")

    assert refused.status_code == 409
    assert "waits for an answer to the agent interrupt" in refused.json()["detail"]
    assert "Booked a table for 4" in answer.content
    assert after.content


def test_another_agent_takes_no_answer_after_a_kill(spans: Recorded, tmp_path: Path) -> None:
    """A process that is killed as it goes on with an answer leaves the question open: another agent is refused."""
    address = f"http://127.0.0.1:{free_port()}"
    env = {"DATA_DIR": str(tmp_path), "PORT": address.rpartition(":")[2]}
    argv, client = [sys.executable, "-m", "tests.flawed_agents"], AgentClient(address, "asks_in_node")
    with start(argv, env, f"{address}/health") as process, suppress(AgentError):
        client.invoke("Hello", thread_id="t-1")
        for event in client.stream("slowly", thread_id="t-1"):
            assert isinstance(event, RunEvent)
            process.popen.kill()

    with start(argv, env, f"{address}/health"):
        with pytest.raises(Refused, match="waits for an answer to the agent asks_in_node"):
            AgentClient(address, "chatbot").invoke("Hello", thread_id="t-1")
        assert client.invoke("yes", thread_id="t-1").content == "You said yes."
        assert AgentClient(address, "chatbot").invoke("Hello", thread_id="t-1").content


def test_another_users_run_and_thread_are_not_there(spans: Recorded, tmp_path: Path) -> None:
    """Nobody cancels, reads or resumes what is not theirs."""
    with service(tmp_path, TABLE) as address:
        ada, bob = (AgentClient(address, "asks_in_node", user_id=user) for user in ("ada", "bob"))
        run = ada.invoke("Hello", thread_id="t-1")
        assert run.run_id
        for attempt in (
            lambda: bob.invoke("yes", thread_id="t-1"),
            lambda: bob.get_history("t-1"),
            lambda: bob.cancel(run.run_id or ""),
        ):
            with pytest.raises(Refused) as refused:
                attempt()
            assert refused.value.status == 404
        assert ada.invoke("yes", thread_id="t-1").content == "You said yes."


def test_a_broken_agent_stops_nobody(spans: Recorded, tmp_path: Path) -> None:
    """It is reported in /info, refused with its reason, and the others answer."""
    with service(tmp_path, TABLE) as address:
        (broken,) = [agent for agent in AgentClient(address).info().agents if agent.error]
        assert (broken.key, broken.error) == ("unloadable", "ImportError: a package is missing")
        with pytest.raises(Failed, match="could not be loaded: ImportError"):
            AgentClient(address, "unloadable").invoke("Hello")
        assert AgentClient(address).invoke("Hello").content


def test_cancelled_at_any_moment(spans: Recorded, tmp_path: Path) -> None:
    """Wherever a cancellation strikes, between two steps too, no answer stays without its call and no call without."""
    dice = random.Random(7)
    with service(tmp_path, TABLE) as address, telemetry.suppress_instrumentation():
        for number in range(40):
            client, thread_id = AgentClient(address, "slow"), f"t-{number}"
            events = client.stream(SUM, thread_id=thread_id)
            run = next(events)
            assert isinstance(run, RunEvent)
            time.sleep(dice.random() * 0.06)
            client.cancel(run.run_id)
            list(events)
            AgentClient(address, "chatbot").invoke("Hello again", thread_id=thread_id)
            history = client.get_history(thread_id).messages
            assert types(history) in (["human", "human", "ai"], ["human", "ai", "tool", "human", "ai"]), thread_id
