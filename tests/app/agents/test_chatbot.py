"""The chatbot talks, uses its tools and remembers, on the demo model and over the wire."""

import asyncio
from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from app.agents import load
from app.models.demo_model import DemoError
from app.models.models import Models, UnknownModelError, load_models
from tests.app.agents.turns import results, say, words
from tests.openai_server import OpenAIServer


async def test_it_calls_both_tools_at_once(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """Asked for a sum and the time, it makes both calls in one message and answers with both results."""
    messages = await say(load("chatbot", models, checkpointer), "what is 12*34 and what time is it")
    assert [message.type for message in messages] == ["human", "ai", "tool", "tool", "ai"]
    assert "The calculator tool says: 408" in messages[-1].text
    assert " UTC" in messages[-1].text


async def test_a_tool_that_fails_is_told_in_words(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """A tool's error is a result with status error, and the answer says so."""
    messages = await say(load("chatbot", models, checkpointer), "what time is it in Atlantis")
    assert [status for _, status, _ in results(messages)] == ["error"]
    assert messages[-1].text.startswith("The current_time tool failed: There is no time zone 'Atlantis'")


async def test_a_thread_outlives_its_process(tmp_path: Path) -> None:
    """A graph built anew on the same file remembers its thread, and no other thread does."""
    path = str(tmp_path / "threads.db")
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        await say(load("chatbot", load_models(), saver), "my name is Ada")
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        chatbot = load("chatbot", load_models(), saver)
        assert (await say(chatbot, "what is my name"))[-1].text == "Your name is Ada."
        assert "not told" in (await say(chatbot, "what is my name", thread_id="other"))[-1].text


async def test_it_streams_word_by_word(checkpointer: BaseCheckpointSaver) -> None:
    """The answer's words arrive as they are said."""
    chatbot = load("chatbot", load_models(), checkpointer)
    assert len([word async for word in words(chatbot, "a story of 50 words")]) == 50


async def test_a_failing_model_fails_the_turn(checkpointer: BaseCheckpointSaver) -> None:
    """What the model raises reaches the caller, and the thread goes on afterwards."""
    chatbot = load("chatbot", load_models(), checkpointer)
    with pytest.raises(DemoError):
        await say(chatbot, "hello /fail-after 2")
    assert (await say(chatbot, "hello"))[-1].text.startswith("Hello!")


async def test_a_cancelled_turn_says_no_more(checkpointer: BaseCheckpointSaver) -> None:
    """Cancelled in mid-answer, the graph stops before the next word."""
    chatbot, said = load("chatbot", load_models(demo_pace_s=0.005), checkpointer), []

    async def listen() -> None:
        async for word in words(chatbot, "tell me a long story"):
            said.append(word)
            if len(said) == 5:
                turn.cancel()

    turn = asyncio.create_task(listen())
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert len(said) == 5


async def test_the_caller_chooses_the_model(checkpointer: BaseCheckpointSaver, server: OpenAIServer) -> None:
    """One graph runs on the model that each run names: the demo, or a real client over the wire."""
    chatbot = load("chatbot", load_models("demo", ["openai:some-model"]), checkpointer)
    await say(chatbot, "my name is Ada and what is 1+1")
    assert server.received == []
    messages = await say(chatbot, "what is my name", model="openai:some-model")
    assert messages[-1].text == "Your name is Ada."
    assert messages[-1].response_metadata["model_name"] == "some-model"
    assert len(server.received) == 1


async def test_a_model_that_is_not_offered_is_refused(checkpointer: BaseCheckpointSaver) -> None:
    """A run that names an unknown model ends in a sentence that names those there are."""
    with pytest.raises(UnknownModelError, match="choose one of: demo"):
        await say(load("chatbot", load_models(), checkpointer), "hello", model="gpt-0")
