"""The history of a thread whose agent removes or sums up messages: each message keeps its run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, RemoveMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

from app.agents import Agent
from app.client import AgentClient
from app.models.models import Models
from tests.service import service


def build_trimming(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent that keeps the last two messages of what was said before."""

    def echo(state: MessagesState) -> dict[str, list]:
        *earlier, question = state["messages"]
        removed = [RemoveMessage(id=message.id or "") for message in earlier[:-2]]
        return {"messages": [*removed, AIMessage(f"You said {question.text}.")]}

    graph = StateGraph(MessagesState).add_node("echo", echo).add_edge(START, "echo")
    return graph.compile(checkpointer, name="trimming")


def build_summing_up(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent of LangChain's own that sums up what was said."""
    summary = SummarizationMiddleware(models.get(None), trigger=("messages", 4), keep=("messages", 2))
    return create_agent(models.get(None), middleware=[summary], checkpointer=checkpointer, name="summing-up")


AGENTS = {
    "trimming": Agent("Trims.", f"{__name__}:build_trimming"),
    "summing-up": Agent("Sums up.", f"{__name__}:build_summing_up"),
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path, AGENTS) as url:
        yield AgentClient(url)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("background", [False, True])
def test_each_message_belongs_to_its_run(client: AgentClient, agent: str, background: bool) -> None:
    """However many messages an agent removes, those that are left are the right run's; none is of a wrong one."""
    client.agent, runs = agent, {}
    for number in range(6):
        message = f"question {number}"
        if background:
            run_id = client.submit(message, thread_id="t-1").run_id
            list(client.follow(run_id))
        else:
            run_id = client.invoke(message, thread_id="t-1").run_id
        runs[message] = run_id
        client.feedback(str(run_id), "stars", number)
        shown = {m.content: m.run_id for m in client.get_history("t-1").messages if m.content in runs}
        assert shown
        assert shown == {content: runs[content] for content in shown}

    history = client.get_history("t-1")
    *_, last = history.messages
    assert (last.type, last.run_id) == ("ai", runs["question 5"])
    # What was voted and counted does not go with the messages.
    votes = {turn.run_id: [vote.score for vote in turn.votes] for turn in history.turns}
    assert votes == {run_id: [number] for number, run_id in enumerate(runs.values())}
    assert all(turn.figures.duration_ms is not None and turn.status == "completed" for turn in history.turns)
