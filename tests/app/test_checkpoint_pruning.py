"""What the service stores grows with what is said: checkpoints of ended turns are deleted, and nothing else is."""

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, TypedDict

import httpx
import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

import app.checkpoint_pruning
from app.agents import Agent
from app.agents.chatbot import build as build_chatbot
from app.client import AgentClient, Failed
from app.database.connect import open_database
from app.database.sqlite import open_sqlite
from app.models.models import Models, load_models
from app.schema import EndEvent
from tests import fork_server
from tests.app.storage import Storage
from tests.flawed_agents import TABLE
from tests.fork_server import ForkedProcess
from tests.processes import bare, until

TURNS = 50
FILLER = " ".join(["and so on"] * 100)
T_1: RunnableConfig = {"configurable": {"thread_id": "t-1"}}


def build_echo(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent that repeats what it is told."""

    def echo(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [AIMessage(state["messages"][-1].text)]}

    return StateGraph(MessagesState).add_node("echo", echo).add_edge(START, "echo").compile(checkpointer, name="echo")


def build_counting(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent whose subgraph counts its calls, in a state of its own that lasts."""

    class Calls(MessagesState):
        calls: int

    def count(state: Calls) -> dict[str, Any]:
        calls = state.get("calls", 0) + 1
        return {"calls": calls, "messages": [AIMessage(f"This is call {calls}.")]}

    counter = StateGraph(Calls).add_node("count", count).add_edge(START, "count").compile(checkpointer=True)
    graph = StateGraph(MessagesState).add_node("counter", counter).add_edge(START, "counter")
    return graph.compile(checkpointer, name="counting")


def _append(messages: list[Any], written: Any) -> list[Any]:
    return [*messages, *(message for each in written for message in each)]


class Differences(TypedDict):
    messages: Annotated[list[Any], DeltaChannel(_append)]


def build_delta(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """An agent whose checkpoints hold only the difference to earlier ones."""

    def echo(state: Differences) -> dict[str, list[AIMessage]]:
        return {
            "messages": [AIMessage(f"You have said {len(state['messages']) // 2 + 1} things.", id=str(os.urandom(8)))]
        }

    return StateGraph(Differences).add_node("echo", echo).add_edge(START, "echo").compile(checkpointer, name="delta")


AGENTS_OF_TESTS = {
    **TABLE,
    "echo": Agent("Repeats.", f"{__name__}:build_echo"),
    "counting": Agent("Counts.", f"{__name__}:build_counting"),
    "delta": Agent("Stores differences.", f"{__name__}:build_delta"),
}


def pruned(storage: Storage, left: int = 1) -> None:
    """Wait until so many checkpoints are left."""
    until(lambda: storage.count("checkpoints") == left, complaint=lambda: str(storage.count("checkpoints")))


def test_it_grows_with_what_is_said(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many turns on one thread, the database has grown by at most ten times the text of the conversation."""
    monkeypatch.setattr(app.checkpoint_pruning, "QUIET_S", 0.5)
    said = 0
    with storage.service(AGENTS_OF_TESTS) as url, httpx.Client(base_url=url, timeout=60) as http:
        empty = storage.size()
        for number in range(TURNS):
            question = f"Question {number}. {FILLER[:400]}"
            answer = http.post("/echo/invoke", json={"message": question, "thread_id": "t-1"}).json()["content"]
            said += len(question) + len(answer)
        pruned(storage)
        until(
            lambda: storage.size() - empty <= 10 * said, complaint=lambda: f"{storage.size() - empty} bytes for {said}"
        )
        messages = http.post("/history", json={"thread_id": "t-1"}).json()["messages"]

    assert len({message["run_id"] for message in messages}) == TURNS
    assert len(messages) == 2 * TURNS


def test_history_and_the_next_turn_are_the_same(storage: Storage) -> None:
    """Messages, runs, votes and what the agent remembers are those of before."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        first = client.invoke("My name is Ada.", thread_id="t-1")
        client.feedback(str(first.run_id), "stars", 5)
        client.invoke("What is 12*34?", thread_id="t-1")
        pruned(storage)
        history = client.get_history("t-1")

        assert [message.type for message in history.messages] == ["human", "ai", "human", "ai", "tool", "ai"]
        assert [message.run_id for message in history.messages[:2]] == [first.run_id] * 2
        assert [len(turn.votes) for turn in history.turns] == [1, 0]
        assert "Ada" in client.invoke("What is my name?", thread_id="t-1").content


@pytest.mark.parametrize("message", ["/fail", "/fail-after 3 tell me a story"])
def test_a_failed_question_can_be_tried_again(storage: Storage, message: str) -> None:
    """As the chat's retry does, by sending it again."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        client.invoke("My name is Ada.", thread_id="t-1")
        with pytest.raises(Failed):
            client.invoke(message, thread_id="t-1")
        pruned(storage)
        with pytest.raises(Failed):
            client.invoke(message, thread_id="t-1")
        pruned(storage)

        assert "Ada" in client.invoke("What is my name?", thread_id="t-1").content
        turns = client.get_history("t-1").turns
        assert [turn.status for turn in turns] == ["completed", "failed", "failed", "completed"]


def test_a_cancelled_turn_can_be_followed_by_another(storage: Storage) -> None:
    """The open call of its tool is answered."""
    with storage.service(TABLE) as url:
        client, end = AgentClient(url, "slow"), None
        for event in client.stream("What is 12*34?", thread_id="t-1"):
            if event.type == "message":
                client.cancel(client.get_history("t-1").turns[-1].run_id)
            end = event
        assert isinstance(end, EndEvent)
        assert end.status == "cancelled"
        pruned(storage)

        assert AgentClient(url, "chatbot").invoke("Hello", thread_id="t-1").content


@pytest.mark.parametrize("agent", ["interrupt", "asks_in_node"])
@pytest.mark.parametrize("background", [False, True])
def test_a_question_stays_open(storage: Storage, agent: str, background: bool) -> None:
    """It is shown and can be answered after the checkpoints before it are gone, also by another process."""
    with storage.service(TABLE) as url:
        client = AgentClient(url, agent)
        client.invoke("Hello", thread_id="t-1") if agent == "interrupt" else None
        if background:
            list(client.follow(client.submit("Book a table for 4 at 20:00", thread_id="t-1").run_id))
        else:
            client.invoke("Book a table for 4 at 20:00", thread_id="t-1")
        pruned(storage)
        assert len(client.get_history("t-1").waiting) == 1

    with storage.service(TABLE) as url:
        client = AgentClient(url, agent)
        (question,) = client.get_history("t-1").waiting
        answer = client.invoke(answers={question.id: "yes"}, thread_id="t-1")
        assert answer.content in ("The book_table tool says: Booked a table for 4 at 20:00.", "You said yes.")
        assert client.get_history("t-1").waiting == []


def test_calls_of_subgraphs_go_with_the_turn(storage: Storage) -> None:
    """What a sub-agent did is deleted with the checkpoint that it started from."""
    with storage.service() as url:
        client = AgentClient(url, "supervisor")
        for number in range(3):
            client.invoke(f"What is {number}*7? And what time is it in Asia/Tokyo?", thread_id="t-1")
        pruned(storage)
        assert "42" in client.invoke("What is 6*7?", thread_id="t-1").content
        assert len(client.get_history("t-1").turns) == 4


def test_the_state_of_a_lasting_subgraph_stays(storage: Storage) -> None:
    """A subgraph with a state of its own goes on from its latest checkpoint."""
    with storage.service(AGENTS_OF_TESTS) as url:
        client = AgentClient(url, "counting")
        for number in range(1, 4):
            assert client.invoke("Count", thread_id="t-1").content == f"This is call {number}."
            pruned(storage, 2)


def test_a_thread_of_differences_stays_whole(storage: Storage) -> None:
    """Checkpoints of a DeltaChannel need their ancestors, and grow with what is said by themselves."""
    with storage.service(AGENTS_OF_TESTS) as url:
        client = AgentClient(url, "delta")
        answers = [client.invoke("Hello", thread_id="t-1").content for _ in range(4)]
        assert answers == [f"You have said {number} things." for number in range(1, 5)]
        assert len(client.get_history("t-1").messages) == 8
    assert storage.count("checkpoints") > 4


async def test_an_edited_question_can_be_asked(storage: Storage) -> None:
    """A thread can go on from any of its questions, since the latest checkpoint has every message by its id."""
    async with open_database(storage.settings) as database:
        graph = build_chatbot(load_models("demo"), database.checkpoints)
        for question in ("My name is Ada.", "What is 12*34?", "What is my name?"):
            await graph.ainvoke({"messages": [HumanMessage(question)]}, T_1)
            await database.checkpoints.aprune(["t-1"])
        messages = (await graph.aget_state(T_1)).values["messages"]
        removed = [RemoveMessage(id=message.id) for message in messages[2:]]
        answered = await graph.ainvoke({"messages": [*removed, HumanMessage("What is 2*3?")]}, T_1)

    texts = [message.text for message in answered["messages"]]
    assert len(messages) == 8
    assert len(texts) == 6
    assert (texts[0], texts[2], "6" in texts[-1]) == ("My name is Ada.", "What is 2*3?", True)


async def test_a_turn_goes_on_while_its_thread_is_pruned(storage: Storage) -> None:
    """Pruning keeps what a running turn saves, at whichever step."""
    async with open_database(storage.settings) as database:
        graph = build_chatbot(load_models("demo"), database.checkpoints)
        async for _ in graph.astream({"messages": [HumanMessage("What is 12*34?")]}, T_1):
            await database.checkpoints.aprune(["t-1"])
        state = await graph.aget_state(T_1)
        await database.checkpoints.aprune(["t-1"])

        assert (await graph.aget_state(T_1)).values == state.values
    assert [message.type for message in state.values["messages"]] == ["human", "ai", "tool", "ai"]
    assert state.next == ()
    assert storage.count("checkpoints") == 1


async def answered(storage: Storage) -> list[Any]:
    """The messages of a thread with unpruned checkpoints."""
    async with open_database(storage.settings) as database:
        graph = build_chatbot(load_models("demo"), database.checkpoints)
        for question in ("My name is Ada.", "What is 12*34?"):
            await graph.ainvoke({"messages": [HumanMessage(question)]}, T_1)
        return (await graph.aget_state(T_1)).values["messages"]


async def messages(storage: Storage) -> list[Any]:
    async with open_database(storage.settings) as database:
        graph = build_chatbot(load_models("demo"), database.checkpoints)
        return (await graph.aget_state(T_1)).values["messages"]


PRUNE = dedent("""
    import asyncio, os, signal, sys
    from app.database.connect import open_database
    from app.settings import load_settings

    async def prune(die_at):
        async with open_database(load_settings()) as database:
            def count(statement, seen=[]):
                seen.append(statement)
                if len(seen) == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            if die_at:
                await database.checkpoints.conn.set_trace_callback(count)
            await database.checkpoints.aprune(["t-1"])

    asyncio.run(prune(int(sys.argv[1])))
""")


def begin_pruning(storage: Storage, die_at: int = 0) -> ForkedProcess:
    log = storage.folder / "log"
    return fork_server.run_code(PRUNE, [str(die_at)], bare() | storage.variables, storage.folder, log, log)


def test_a_kill_while_sqlite_is_pruned(tmp_path: Path) -> None:
    """Whatever the statement that a process is killed at, the thread is as before, and can be pruned."""
    storage, statuses = Storage(tmp_path), set[int]()
    before, stored = asyncio.run(answered(storage)), storage.count("checkpoints")
    # Two reads, the beginning of the transaction, three changes, its end.
    for statement in (5, 6, 7):
        statuses.add(begin_pruning(storage, statement).wait(60))
        assert storage.count("checkpoints") == stored
        assert asyncio.run(messages(storage)) == before

    assert statuses == {-signal.SIGKILL}
    assert begin_pruning(storage).wait(60) == 0
    assert storage.count("checkpoints") == 1
    assert asyncio.run(messages(storage)) == before


def test_a_kill_while_postgres_is_pruned(postgres_storage: Storage) -> None:
    """A process that is killed after it has deleted checkpoints, and not yet their values, changes nothing."""
    storage = postgres_storage
    before, stored = asyncio.run(answered(storage)), storage.count("checkpoints")
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%DELETE%blobs%'"
    with psycopg.connect(storage.url or "") as other:
        other.execute("lock table checkpoint_blobs in exclusive mode")
        process = begin_pruning(storage)
        until(lambda: storage.rows(waiting) == [(1,)])
        process.kill()
        process.wait(60)

    assert storage.count("checkpoints") == stored
    assert asyncio.run(messages(storage)) == before
    assert begin_pruning(storage).wait(60) == 0
    assert storage.count("checkpoints") == 1
    assert asyncio.run(messages(storage)) == before


async def write_as_before(file: Path) -> None:
    """Write a conversation as earlier releases did."""
    async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
        graph = build_chatbot(load_models("demo"), saver)
        for number in range(30):
            await graph.ainvoke({"messages": [HumanMessage(f"My name is Ada {number}. {FILLER}")]}, T_1)


async def test_sqlite_files_of_earlier_releases_shrink(tmp_path: Path) -> None:
    """At the first start their old checkpoints are deleted, and their space is returned; so is what is freed later."""
    file = tmp_path / "checkpoints.db"
    await write_as_before(file)
    before = file.stat().st_size

    async with open_sqlite(tmp_path) as database:
        await database.compact()
        graph = build_chatbot(load_models("demo"), database.checkpoints)
        assert len((await graph.aget_state(T_1)).values["messages"]) == 60
        after = file.stat().st_size
        await database.checkpoints.adelete_thread("t-1")
        await database.compact()
        empty = file.stat().st_size

    assert after < before / 10
    assert empty < after / 2
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("pragma quick_check").fetchall() == [("ok",)]


async def test_a_locked_file_is_shrunk_later(tmp_path: Path) -> None:
    """Whoever writes to it is not kept waiting, and nothing fails."""
    await write_as_before(tmp_path / "checkpoints.db")
    async with open_sqlite(tmp_path) as database:
        with closing(sqlite3.connect(tmp_path / "checkpoints.db", isolation_level=None)) as other:
            other.execute("begin immediate")
            await database.compact()
        size = (tmp_path / "checkpoints.db").stat().st_size
        await database.compact()
        assert (tmp_path / "checkpoints.db").stat().st_size < size


@pytest.mark.parametrize("earlier", [True, False])
async def test_what_pruning_would_delete_is_known(storage: Storage, earlier: bool) -> None:
    """Its bytes, by thread; nothing for a thread that is pruned."""
    await answered(storage)
    async with open_database(storage.settings) as database:
        if not earlier:
            await database.checkpoints.aprune(["t-1"])
        before, size = await database.checkpoints.earlier_bytes(), await database.checkpoints.bytes_of("t-1")
        await database.checkpoints.aprune(["t-1"])

        assert (before.get("t-1", 0) > 1000) is earlier
        assert size - before.get("t-1", 0) == pytest.approx(await database.checkpoints.bytes_of("t-1"), abs=100)
