"""The booking agent asks before it books, and waits as long as it takes."""

from pathlib import Path

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from app.agents import load
from app.models.models import Models, load_models
from app.schema import agrees
from tests.app.agents.turns import results, say

ASKED = {
    "question": "Shall I book a table for 4 at 20:00?",
    "options": ["yes", "no"],
    "action": {"name": "book_table", "args": {"people": 4, "time": "20:00"}},
    "allowed_decisions": ["approve", "edit", "reject"],
}


async def waiting_for(graph: CompiledStateGraph) -> list:
    state = await graph.aget_state(RunnableConfig(configurable={"thread_id": "t"}))
    return [waiting.value for waiting in state.interrupts]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("yes", "Booked a table for 4 at 20:00."),
        ("no", "Did not book a table for 4 at 20:00: the answer was 'no'."),
        ({"type": "approve"}, "Booked a table for 4 at 20:00."),
        ({"type": "edit", "edited_action": {"args": {"people": 6}}}, "Booked a table for 6 at 20:00."),
        (
            {"type": "reject", "message": "Too late."},
            "Did not book a table for 4 at 20:00: the answer was 'Too late.'.",
        ),
        ({"type": "reject"}, "Did not book a table for 4 at 20:00: the answer was 'no'."),
    ],
)
async def test_it_books_only_what_the_person_agrees_to(
    models: Models, checkpointer: BaseCheckpointSaver, answer: object, outcome: str
) -> None:
    """It asks, waits without an answer, and does as told once one comes."""
    agent = load("interrupt", models, checkpointer)
    asked = await say(agent, "book a table for 4 at 20:00")
    assert results(asked) == []
    assert await waiting_for(agent) == [ASKED]
    messages = await say(agent, Command(resume=answer))
    assert results(messages) == [("book_table", "success", outcome)]
    assert outcome in messages[-1].text
    assert await waiting_for(agent) == []


async def test_the_wait_outlives_the_process(tmp_path: Path) -> None:
    """A graph built anew on the same file still waits for the answer, and takes it."""
    path = str(tmp_path / "threads.db")
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        await say(load("interrupt", load_models(), saver), "book a table for 4 at 20:00")
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        agent = load("interrupt", load_models(), saver)
        assert await waiting_for(agent) == [ASKED]
        assert "Booked" in (await say(agent, Command(resume="Yes, please!")))[-1].text


@pytest.mark.parametrize("answer", ["yes", "Yes.", " OK, go on", "sure", "Y!"])
def test_consent(answer: str) -> None:
    """A yes in its usual forms is one."""
    assert agrees(answer)


@pytest.mark.parametrize("answer", ["no", "", "yesterday", "not yet", None, {"yes": 1}, ["yes"]])
def test_no_consent(answer: object) -> None:
    """Whatever is not plainly a yes is none."""
    assert not agrees(answer)
