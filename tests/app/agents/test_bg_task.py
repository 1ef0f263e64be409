"""The agent that works long says how far it is."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from app.agents import load
from app.models.models import Models, load_models
from telemetry.testing import Recorded
from tests.app.agents.turns import results, say


async def test_it_works_as_long_as_it_is_told(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """The seconds come from the message, and the end is told."""
    messages = await say(load("bg-task", models, checkpointer), "work for 0.5 seconds")

    assert results(messages) == [("long_work", "success", "Worked for 0.5 seconds, in 2 steps.")]
    assert messages[-1].text == "The long_work tool says: Worked for 0.5 seconds, in 2 steps."


async def test_its_progress_is_streamed(checkpointer: BaseCheckpointSaver) -> None:
    """Whoever reads the graph's own stream sees the task begin and end, with how far it came."""
    agent, config = load("bg-task", load_models(), checkpointer), RunnableConfig(configurable={"thread_id": "t"})
    given: Any = {"messages": [("user", "work for 0.5 seconds")]}
    told = [event async for event in agent.astream(given, config, stream_mode="custom")]

    # On a busy machine there is time for more in between.
    assert [event["state"] for event in told if event["state"] != "progress"] == ["started", "finished"]
    assert (told[0]["state"], told[-1]["state"]) == ("started", "finished")
    assert told[-1]["data"] == {"steps": 2, "done": 2}


async def test_the_task_hangs_under_its_tool(checkpointer: BaseCheckpointSaver, spans: Recorded) -> None:
    """The task and its events are in the tree, below the tool that does the work."""
    await say(load("bg-task", load_models(), checkpointer), "work for 0.5 seconds")

    shown = spans.tree().replace("\n        progress", "")
    assert "    long_work TOOL\n      task long work\n        started\n        finished\n" in shown + "\n"


async def test_too_long_is_refused(checkpointer: BaseCheckpointSaver) -> None:
    """More than an hour is refused in a sentence."""
    messages = await say(load("bg-task", load_models(), checkpointer), "work for 9999 seconds")

    assert results(messages) == [("long_work", "error", "Error: Ask for 0 to 3600 seconds.")]
