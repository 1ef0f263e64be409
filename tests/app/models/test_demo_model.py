"""The demo model: words, tools, memory, failure, all by rule."""

import asyncio
import time

import pytest
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable

from app.agents.tools import calculator, current_time
from app.models.demo_model import RULES, DemoError, DemoModel, calls_for, chunks_of, reply_to

TOOLS = [calculator, current_time]


async def collected(model: Runnable, messages: LanguageModelInput) -> AIMessageChunk:
    whole, *rest = [chunk async for chunk in model.astream(messages)]
    for chunk in rest:
        whole += chunk
    return whole


async def test_every_way_of_asking_gives_the_same_answer() -> None:
    """Invoked or streamed, sync or async, the same message gets the same words."""
    model, question = DemoModel(), "tell me a long story"
    answers = {
        model.invoke(question).text,
        (await model.ainvoke(question)).text,
        "".join(chunk.text for chunk in model.stream(question)),
        (await collected(model, question)).text,
    }
    assert len(answers) == 1
    assert len(answers.pop().split()) >= 200


@pytest.mark.parametrize("words", [1, 17, 500])
def test_a_story_has_as_many_words_as_asked_for(words: int) -> None:
    """`story of N words` has N words."""
    assert len(DemoModel().invoke(f"a story of {words} words").text.split()) == words


async def test_a_stream_reports_usage_and_reason() -> None:
    """The whole of a stream says how many words were read and said, by which model, and why it stopped."""
    answer = await collected(DemoModel(), "hello you")
    words = len(answer.text.split())
    assert answer.usage_metadata == {"input_tokens": 2, "output_tokens": words, "total_tokens": words + 2}
    assert answer.response_metadata == {"model_name": "demo", "finish_reason": "stop"}


def test_it_says_what_it_is() -> None:
    """Greeted, it says that it is a demo model and no language model."""
    assert "demo model" in DemoModel().invoke("Hello!").text


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("what is 12*34", [("calculator", {"expression": "12*34"})]),
        ("what time is it?", [("current_time", {})]),
        ("What time is it in Europe/Berlin?", [("current_time", {"timezone": "Europe/Berlin"})]),
        (
            "what is (1 + 2) * 3 and what time is it",
            [("calculator", {"expression": "(1 + 2) * 3"}), ("current_time", {})],
        ),
        ("hello 12", []),
        ("what is 1+1, I mean 1+1", [("calculator", {"expression": "1+1"})]),
        (" ".join(f"{n}+1" for n in range(99)), [("calculator", {"expression": f"{n}+1"}) for n in range(8)]),
    ],
)
async def test_it_calls_the_tools_that_the_words_ask_for(text: str, calls: list[tuple[str, dict]]) -> None:
    """Each rule that matches becomes a call, in one message."""
    answer = await collected(DemoModel().bind_tools(TOOLS), text)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == calls
    assert answer.response_metadata["finish_reason"] == ("tool_calls" if calls else "stop")
    assert bool(answer.text) == (not calls)


def test_it_calls_only_tools_it_is_bound_to() -> None:
    """Without the calculator there is no call, but words."""
    answer = DemoModel().bind_tools([current_time]).invoke("what is 12*34")
    assert answer.tool_calls == []
    assert answer.text


@pytest.mark.parametrize(
    "piece",
    ["1", "(", "1+", "1 ", " ", "search for ", "read \n", "my name is ", "9 words ", "what time is it in ", "a"],
)
async def test_a_long_message_keeps_nobody_waiting(piece: str) -> None:
    """Whatever fills the longest message that the service takes, the rules are through with it in a moment."""
    text = f"a story {piece * (100_000 // len(piece))}"
    begun = time.monotonic()
    calls_for([HumanMessage(text)], {tool for tool, _ in RULES})
    await DemoModel().ainvoke(text)
    assert time.monotonic() - begun < 5


def turn(*results: ToolMessage) -> list:
    call = {"name": "calculator", "args": {"expression": "1+1"}, "id": "1", "type": "tool_call"}
    return [HumanMessage("what is 1+1"), AIMessage("", tool_calls=[call]), *results]


def test_it_answers_with_what_the_tool_said() -> None:
    """After a tool's result come words with that result in them, and no further call."""
    done = turn(ToolMessage("2", name="calculator", tool_call_id="1"))
    answer = DemoModel().bind_tools(TOOLS).invoke(done)
    assert answer.tool_calls == []
    assert answer.text == "The calculator tool says: 2"


def test_it_says_that_a_tool_failed() -> None:
    """A tool's error is told as one."""
    failed = turn(ToolMessage("no such number", name="calculator", tool_call_id="1", status="error"))
    assert DemoModel().invoke(failed).text == "The calculator tool failed: no such number"


def test_it_tries_again_once_when_the_tool_asks_for_it() -> None:
    """A tool that says `try again` is called a second time with the same arguments, and not a third time."""
    model = DemoModel().bind_tools(TOOLS)
    messages = turn(ToolMessage("busy, try again", name="calculator", tool_call_id="1", status="error"))
    second = model.invoke(messages)
    assert [call["args"] for call in second.tool_calls] == [{"expression": "1+1"}]
    call_id = second.tool_calls[0]["id"]
    refused = ToolMessage("busy, try again", name="calculator", tool_call_id=call_id, status="error")
    assert model.invoke([*messages, second, refused]).tool_calls == []


def test_it_remembers_the_thread() -> None:
    """A name told earlier among the messages is known later."""
    model, told = DemoModel(), HumanMessage("Hi, my name is Ada")
    assert "Ada" in model.invoke([told, AIMessage("…"), HumanMessage("what's my name?")]).text
    assert "not told" in model.invoke("what is my name").text


def test_it_fails_before_the_first_word() -> None:
    """`/fail` raises with nothing said."""
    with pytest.raises(DemoError):
        next(DemoModel().stream("hello /fail"))


async def test_it_fails_after_the_words_asked_for() -> None:
    """`/fail-after 3` raises after three words, streamed or not."""
    said = []

    async def listen() -> None:
        async for chunk in DemoModel().astream("hello /fail-after 3"):
            said.append(chunk.text)  # noqa: PERF401 — what came before the failure is the point

    with pytest.raises(DemoError):
        await listen()
    assert len(said) == 3
    with pytest.raises(DemoError):
        await DemoModel().ainvoke("hello /fail-after 3")


async def test_a_cancelled_stream_says_nothing_more() -> None:
    """Cancelled between two words, not one more is generated, however long the pace."""
    said, third = [], asyncio.Event()

    async def listen() -> None:
        async for chunk in DemoModel(pace_s=0.01).astream("tell me a long story"):
            said.append(chunk.text)
            if len(said) == 3:
                third.set()

    listening = asyncio.create_task(listen())
    await third.wait()
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert len(said) == 3


async def test_the_pace_does_not_block_the_loop() -> None:
    """While the model waits between words, other tasks run."""
    model, ticks = DemoModel(pace_s=0.005), 0
    answering = asyncio.create_task(model.ainvoke("hello"))
    while not answering.done():
        ticks += 1
        await asyncio.sleep(0)
    assert ticks > len((await answering).text.split())


def test_a_reply_streams_to_exactly_its_words() -> None:
    """The chunks of a reply put together are the reply."""
    reply = reply_to([HumanMessage("a story of 20 words")], set())
    assert "".join(chunk.text for chunk in chunks_of(reply)) == "".join(reply.pieces)


def test_tracing_sees_provider_and_model() -> None:
    """What tracers are told names the demo as provider and model."""
    params = DemoModel()._get_ls_params()
    assert (params.get("ls_provider"), params.get("ls_model_name")) == ("demo", "demo")
