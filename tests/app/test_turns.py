"""What agent code finds in its config, and what of it is kept."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from app.agents import Agent
from app.client import AgentClient, Refused
from app.models.models import Models
from app.schema import InterruptEvent
from telemetry.testing import Recorded
from tests.service import service

IDS = ("trace_id", "session_id", "agent_name", "run_id")


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent that tells what it finds in its config."""

    def tell(state: MessagesState, config: RunnableConfig) -> dict[str, list[AIMessage]]:
        found = config.get("configurable", {})
        return {"messages": [AIMessage(" ".join(f"{name}={found[name]}" for name in IDS))]}

    graph = StateGraph(MessagesState)
    graph.add_node("tell", tell)
    graph.add_edge(START, "tell")
    return graph.compile(checkpointer, name="telling")


def build_asking(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent that asks in a graph within its graph."""

    def ask(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [AIMessage(f"You said {interrupt('Shall I?')}.")]}

    below = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile(name="below")
    graph = StateGraph(MessagesState).add_node("below", below).add_edge(START, "below")
    return graph.compile(checkpointer, name="asking")


@pytest.fixture
def client(spans: Recorded, tmp_path: Path) -> Iterator[AgentClient]:
    table = {
        "telling": Agent("Tells its ids.", "tests.app.test_turns:build"),
        "asking": Agent("Asks.", "tests.app.test_turns:build_asking"),
    }
    with service(tmp_path, table) as url:
        yield AgentClient(url, "telling", user_id="ada")


def test_agent_code_reads_its_ids(client: AgentClient) -> None:
    """Trace, session, agent and run stand in the RunnableConfig."""
    said = client.invoke("Hello", thread_id="t-1")

    assert said.content == f"trace_id={said.trace_id} session_id=t-1 agent_name=telling run_id={said.run_id}"


def test_a_question_is_asked_once(client: AgentClient) -> None:
    """However deep the asking node lies, clients are told once, and the answer reaches it."""
    client.agent = "asking"
    events = list(client.stream("Hello", thread_id="t-1"))

    assert [event.value for event in events if isinstance(event, InterruptEvent)] == ["Shall I?"]
    assert client.invoke("yes", thread_id="t-1").content == "You said yes."


def test_the_ids_are_kept_and_nothing_else(client: AgentClient, tmp_path: Path) -> None:
    """Each checkpoint's metadata has the ids of its run, and nothing that a caller could have put there."""
    said = client.invoke("Hello", thread_id="t-1")
    with pytest.raises(Refused, match="api_key"):
        client.invoke("Hello", thread_id="t-1", agent_config={"api_key": "sk-secret"})

    with sqlite3.connect(tmp_path / "checkpoints.db") as database:
        saved = [row[0] for row in database.execute("select json(metadata) from checkpoints")]
        everything = "".join(str(row) for row in database.execute("select * from checkpoints"))
    database.close()
    assert saved
    for metadata in saved:
        assert f'"trace_id":"{said.trace_id}"' in metadata
        assert f'"run_id":"{said.run_id}"' in metadata
        assert '"session_id":"t-1"' in metadata
        assert '"agent_name":"telling"' in metadata
    assert "sk-secret" not in everything
