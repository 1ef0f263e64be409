"""A thread stays usable, and people are told, whatever the model answers."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.client import AgentClient, Failed
from app.messages import CANCELLED
from app.schema import EndEvent, MessageEvent, TokenEvent
from tests.app.scripted_provider import Provider, call, scripted_provider, text
from tests.flawed_agents import TABLE
from tests.processes import until
from tests.service import service
from ui.exchange import from_events

SUM = "What is 12*34?"
VALID = '{"expression": "12*34"}'


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with scripted_provider(monkeypatch) as running:
        yield running


@pytest.fixture
def client(provider: Provider, tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path, TABLE, MODEL="openai:gpt-scripted") as url:
        yield AgentClient(url, "chatbot")


@pytest.mark.parametrize("arguments", ["{", "", "12*34", '["12*34"]', '"12*34"', "null", "{]}"])
def test_a_call_without_an_object_is_answered_with_its_error(
    client: AgentClient, provider: Provider, arguments: str
) -> None:
    """The model is told what was wrong and goes on; the next turn is taken as well."""
    provider.script = [call(arguments), call(VALID, "tool:1"), text("408"), text("Hello")]

    assert client.invoke(SUM, thread_id="t-1").content == "408"
    assert client.invoke("Hello", thread_id="t-1").content == "Hello"
    _, asked, error, *_ = client.get_history("t-1").messages
    assert [made.name for made in asked.tool_calls] == ["calculator"]
    assert error.tool_call_id == asked.tool_calls[0].id
    assert error.custom_data["status"] == "error"
    assert len(provider.requests) == 4


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [
        (["I am \ud83d", "\ude00!"], "I am \U0001f600!"),
        (["\ud83d", "", "\ude00\ud83d", "\ude80"], "\U0001f600\U0001f680"),
        (["half \ud83d", " of it"], "half \ufffd of it"),
        (["the other \ude00"], "the other \ufffd"),
        (["cut off \ud83d"], "cut off \ufffd"),
    ],
)
def test_halves_of_a_character_are_joined(
    client: AgentClient, provider: Provider, pieces: list[str], answer: str
) -> None:
    """A provider may send the halves of an emoji in two pieces; one without the other is shown as unreadable."""
    provider.script = [{**text(""), "pieces": pieces}, text("Hello")]

    events = list(client.stream("Hello", thread_id="t-1"))
    assert "".join(event.content for event in events if isinstance(event, TokenEvent)) == answer
    assert client.get_history("t-1").messages[-1].content == answer
    assert client.invoke("Hello", thread_id="t-1").content == "Hello"


def test_a_call_without_an_object_beside_one_with(client: AgentClient, provider: Provider) -> None:
    """Each call has its own answer: the tool's, and the error."""
    both = call(VALID, "tool:0")
    both["delta"]["tool_calls"].append({**call("{", "tool:1")["delta"]["tool_calls"][0], "index": 1})
    provider.script = [both, text("408")]

    assert client.invoke(SUM, thread_id="t-1").content == "408"
    answers = {m.tool_call_id: m.content for m in client.get_history("t-1").messages if m.type == "tool"}
    assert answers["tool:0"] == "408"
    assert answers["tool:1"].startswith("Error: ")


def test_a_model_that_never_learns_fails_its_turn_only(client: AgentClient, provider: Provider) -> None:
    """The number of tries is bounded, and the thread goes on."""
    provider.script = [*[call("{")] * 60]
    with pytest.raises(Failed, match="GraphRecursionError"):
        client.invoke(SUM, thread_id="t-1")

    provider.script = [text("Hello")]
    assert client.invoke("Hello", thread_id="t-1").content == "Hello"


@pytest.mark.parametrize("agent", ["slow", "stubborn"])
def test_ids_that_repeat_from_turn_to_turn(client: AgentClient, provider: Provider, agent: str) -> None:
    """A call that is stopped is answered, although an earlier turn answered one of the same id."""
    provider.script = [call(VALID), text("408"), call(VALID)]
    assert client.invoke(SUM, thread_id="t-1").content == "408"

    client.agent = agent
    for event in client.stream(SUM, thread_id="t-1"):
        if isinstance(event, MessageEvent) and event.content.tool_calls:
            break
    until(lambda: client.get_thread("t-1").status == "cancelled")

    provider.script, client.agent = [text("Hello")], "chatbot"
    assert client.invoke("Hello", thread_id="t-1").content == "Hello"
    tools = [message.content for message in client.get_history("t-1").messages if message.type == "tool"]
    assert tools == ["408", CANCELLED]


def test_ids_that_repeat_from_run_to_run(client: AgentClient, provider: Provider) -> None:
    """A background run makes its own calls, although an earlier one on the thread had the same ids."""
    provider.script = [call(VALID), text("408"), call('{"expression": "1+1"}'), text("2")]
    answers = []
    for message in (SUM, "What is 1+1?"):
        run = client.submit(message, thread_id="t-1")
        events = [event.content for event in client.follow(run.run_id) if isinstance(event, MessageEvent)]
        answers.append([content.content for content in events if content.type == "tool"])
    assert answers == [["408"], ["2"]]


@pytest.mark.parametrize("failing", [[500] * 8, [call(VALID), *[500] * 8]], ids=["first", "after_a_tool"])
def test_after_a_failed_turn_roles_alternate(client: AgentClient, provider: Provider, failing: list) -> None:
    """A provider that wants an answer after each message takes the turn after one that failed; nobody is shown it."""
    provider.script = list(failing)
    with pytest.raises(Failed):
        client.invoke(SUM, thread_id="t-1")

    provider.script = [text("Hello")]
    assert client.invoke("Hello", thread_id="t-1").content == "Hello"
    history = client.get_history("t-1").messages
    assert [message.type for message in history if message.type != "tool" and message.content] == [
        "human",
        "human",
        "ai",
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (text("", "content_filter"), "filter"),
        (text("", "length"), "cut off"),
        (text("Once upon", "length"), "Once upon"),
        (text("Once upon", "length"), "cut off"),
        (text("", refusal="I cannot help with that."), "I cannot help with that."),
    ],
)
def test_an_answer_that_ended_early_is_told_in_words(
    client: AgentClient, provider: Provider, answer: dict, words: str
) -> None:
    """What was filtered, cut or refused is no empty answer: not in the stream, the history or a single answer."""
    provider.script = [answer, answer]
    assert words in client.invoke("Hello", thread_id="t-1").content
    events = list(client.stream("Hello", thread_id="t-2"))
    assert [words in event.content.content for event in events if isinstance(event, MessageEvent)] == [True]
    assert isinstance(events[-1], EndEvent)
    for thread_id in ("t-1", "t-2"):
        assert words in client.get_history(thread_id).messages[-1].content


def test_a_killed_turn_leaves_a_thread_that_goes_on(client: AgentClient, provider: Provider, tmp_path: Path) -> None:
    """A message that nobody answered, since its process died, is followed by an answer's place."""
    provider.script = [text("Hello")]
    client.invoke("Hi", thread_id="t-1")
    with httpx.Client() as http:  # an answer that never comes, and a reader that goes: as far as a test can kill itself
        provider.script = [call(VALID)]
        client.agent = "slow"
        with http.stream("POST", f"{client.base_url}/slow/stream", json={"message": SUM, "thread_id": "t-1"}):
            until(lambda: len(provider.requests) == 2)
    until(lambda: client.get_thread("t-1").status == "cancelled")
    provider.script, client.agent = [text("Hello again")], "chatbot"
    assert client.invoke("Hello?", thread_id="t-1").content == "Hello again"


@pytest.fixture
def fallback(provider: Provider, tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path, MODEL="openai:gpt-scripted", MODEL_FALLBACKS="demo") as url:
        yield AgentClient(url, "chatbot")


def test_a_busy_provider_is_asked_again(client: AgentClient, provider: Provider) -> None:
    """After the time that it names; if it stays busy the turn fails, says so, and the thread goes on."""
    provider.script = [429, text("Hello")]
    asked = time.monotonic()
    assert client.invoke("Hello", thread_id="t-1").content == "Hello"
    assert time.monotonic() - asked >= 1

    provider.script = [429, 429, 429, text("Hello again")]
    with pytest.raises(Failed, match="429"):
        client.invoke("Hello", thread_id="t-1")
    assert client.invoke("Hello", thread_id="t-1").content == "Hello again"


@pytest.mark.parametrize("status", [401, 404, 400])
def test_a_model_that_fails_is_stood_in_for(fallback: AgentClient, provider: Provider, status: int) -> None:
    """The next model answers, with its tools; the thread goes on with the first one once that works."""
    provider.script = [status, status, text("I am back.")]

    assert "408" in fallback.invoke(SUM, thread_id="t-1").content
    assert [m.type for m in fallback.get_history("t-1").messages] == ["human", "ai", "tool", "ai"]
    assert fallback.invoke("Hello", thread_id="t-1").content == "I am back."


def test_what_a_model_said_before_it_failed_is_not_the_answer(fallback: AgentClient, provider: Provider) -> None:
    """Pieces of the message that broke off are followed by those of another message, which replace them."""
    provider.script = [{**text("The answer is "), "breaks_off": True}]
    events = list(fallback.stream("Hello", thread_id="t-1"))

    pieces = [event for event in events if isinstance(event, TokenEvent)]
    assert pieces[0].content == "The answer is "
    assert len({piece.message_id for piece in pieces}) == 2
    *_, last = fallback.get_history("t-1").messages
    assert "The answer is" not in last.content
    assert from_events("Hello", events[:-2]).answer == last.content
