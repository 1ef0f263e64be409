"""The supervisor hands tasks over and answers with what the workers found."""

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from app.agents import load
from app.models.models import Models, load_models
from tests.app.agents.turns import results, say


async def test_two_workers_at_once(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """Two tasks go to two workers, and each answer is the result of the call that handed it over."""
    messages = await say(load("supervisor", models, checkpointer), "what is 12*34 and what time is it")
    assert [message.type for message in messages] == ["human", "ai", "tool", "tool", "ai"]
    answers = {name: text for name, _, text in results(messages)}
    assert answers["transfer_to_math"] == "The calculator tool says: 408"
    assert answers["transfer_to_clock"].endswith(" UTC")
    assert "408" in messages[-1].text


async def test_the_same_worker_twice_at_once(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """Two tasks for one worker are two results, none mistaken for the other."""
    messages = await say(load("supervisor", models, checkpointer), "what is 1+1 and what is 2+2")
    call_of = {call["id"]: call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    told = {call_of[m.tool_call_id]["args"]["task"]: m.text for m in messages if isinstance(m, ToolMessage)}
    assert told == {"1+1": "The calculator tool says: 2", "2+2": "The calculator tool says: 4"}


async def test_a_worker_whose_tool_fails_says_so(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """A worker's failed tool is told in the worker's words, and the turn ends well."""
    messages = await say(load("supervisor", models, checkpointer), "what is 1/0")
    assert "The calculator tool failed: 1/0 cannot be calculated" in messages[-1].text


async def test_what_needs_no_worker_is_answered_at_once(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """Without a task nobody is called, and the next turn still hands over."""
    supervisor = load("supervisor", models, checkpointer)
    assert [message.type for message in await say(supervisor, "hello")] == ["human", "ai"]
    assert "4" in (await say(supervisor, "what is 2+2"))[-1].text


async def test_a_hand_over_that_fails_goes_back_to_the_model(checkpointer: BaseCheckpointSaver) -> None:
    """A call without its task is an error that the model is told of, not the end of the turn."""
    supervisor = load("supervisor", load_models(), checkpointer)
    call = {"name": "transfer_to_math", "args": {}, "id": "1", "type": "tool_call"}
    config = RunnableConfig(configurable={"thread_id": "t"})
    begun = [HumanMessage("what is it?"), AIMessage("", tool_calls=[call])]
    await supervisor.aupdate_state(config, {"messages": begun}, as_node="model")
    state = await supervisor.ainvoke(None, config)
    assert {status for _, status, _ in results(state["messages"])} == {"error"}
    assert state["messages"][-1].text.startswith("The transfer_to_math tool failed")
