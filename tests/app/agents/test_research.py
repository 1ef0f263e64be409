"""The researcher searches in parallel and tries again where the library asks for it."""

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver

from app.agents import load
from app.agents.passages import PASSAGES, KeywordRetriever
from app.models.models import Models
from tests.app.agents.turns import results, say


async def test_two_searches_at_once(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """Two searches are two calls of one message, and both findings are in the answer."""
    messages = await say(load("research", models, checkpointer), "search for sampling and search for baggage")
    asked = messages[1]
    assert isinstance(asked, AIMessage)
    assert [call["args"] for call in asked.tool_calls] == [{"query": "sampling"}, {"query": "baggage"}]
    assert PASSAGES["Sampling"] in messages[-1].text
    assert PASSAGES["Baggage"] in messages[-1].text


async def test_the_library_is_asked_twice(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """In every turn the first call is refused and the second one read."""
    research = load("research", models, checkpointer)
    for title in ("Span link", "Session"):
        said = await say(research, f"read {title}")
        assert [(status, text) for _, status, text in results(said)[-2:]] == [
            ("error", "Error: The library is not ready yet, try again."),
            ("success", PASSAGES[title]),
        ]
        assert said[-1].text == f"The read_passage tool says: {PASSAGES[title]}"


async def test_a_passage_that_is_not_there(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """An unknown title is refused with the titles there are."""
    messages = await say(load("research", models, checkpointer), "read Poetry")
    assert "There is no passage 'Poetry'; there are: Trace, Span," in messages[-1].text


async def test_nothing_found_is_said(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """A search without a finding says so instead of nothing."""
    messages = await say(load("research", models, checkpointer), "search for pancakes")
    assert messages[-1].text == "The search tool says: Nothing."


@pytest.mark.parametrize("title", PASSAGES)
def test_each_passage_is_found_by_its_title(title: str) -> None:
    """The title of a passage finds it first."""
    found = KeywordRetriever(passages=PASSAGES).invoke(title)
    assert found[0].metadata["title"] == title
    assert len(found) <= 2
