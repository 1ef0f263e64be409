"""A turn ends once, with all that it opened, whatever its reader and its work do."""

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any
from uuid import uuid4

import anyio
import pytest
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

import telemetry
from telemetry import Turn
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare
from telemetry.instrumentation.langchain.cancellation import CancellationCallback
from telemetry.settings import Settings
from telemetry.testing import Recorded

module = import_module("telemetry.turn")  # the package has a context manager under this name

SECRET = "sk-ant-api03-" + "a1B2" * 12

pytestmark = pytest.mark.usefixtures("langchain")


def begin(**options: Any) -> Turn[int]:
    return Turn[int]("agent", run_id=uuid4(), session_id="t-1", user_id="ada", message="Hello", **options)


def turn_attributes(spans: Recorded) -> dict[str, Any]:
    (span,) = [span for span in spans.settled() if span.name == "turn"]
    assert not spans.ended_twice
    return dict(span.attributes or {})


async def forever(turn: Turn[int]) -> None:
    for number in range(1_000_000):
        await turn.emit(number)
        await asyncio.sleep(0)


async def test_a_whole_turn(spans: Recorded) -> None:
    """The reader gets everything; the span says what went in, what came out, and how."""

    async def work(turn: Turn[int]) -> None:
        for number in range(3):
            turn.token()
            await turn.emit(number)
        turn.answer = "Hi"

    turn = begin()
    turn.start(work, streamed=True)
    assert [number async for number in turn] == [0, 1, 2]

    said = turn_attributes(spans)
    assert (said["input.value"], said["output.value"]) == ("Hello", "Hi")
    assert (said["turn.status"], said["turn.events"], said["turn.tokens"]) == ("completed", 3, 3)
    assert "turn.first_token_ms" in said
    assert spans.tree(["stream.status", "stream.tokens"]) == (
        "turn AGENT\n  stream stream.status=completed stream.tokens=3"
    )


async def test_a_turn_that_waits_tells_what_it_asks(spans: Recorded) -> None:
    """Its output has the answer so far and each question once; it leaves redacted and within the budget."""

    async def work(turn: Turn[int]) -> None:
        turn.answer = "Nearly done."
        assert turn.ask("q-1", {"question": f"Is {SECRET} yours?", "options": ["yes"]})
        assert not turn.ask("q-1", {"question": f"Is {SECRET} yours?", "options": ["yes"]})
        assert turn.ask("q-2", "And this? " + "x" * 50_000)

    turn = begin()
    turn.start(work)
    await turn.ended()

    said = turn_attributes(spans)["output.value"].split("\n\n")
    assert said[:2] == ["Nearly done.", f'{{"question":"Is {SECRET} yours?","options":["yes"]}}']
    assert (len(said), said[2][:9]) == (3, "And this?")
    (span,) = spans.settled()
    stages = build_stages(Settings.model_validate({"TELEMETRY_MAX_VALUE_BYTES": 2_000}))
    (arrived,) = otlp.decode(prepare(span, stages), "application/x-protobuf")
    shown = arrived.attributes["langfuse.observation.output"]
    assert SECRET not in shown
    assert shown.startswith('Nearly done.\n\n{"question":"Is ')
    assert len(shown) <= 2_000


async def test_a_turn_that_was_stopped_asks_nothing(spans: Recorded) -> None:
    """Nobody is shown a question that can no longer be answered."""

    async def work(turn: Turn[int]) -> None:
        turn.ask("q-1", "Shall I?")
        turn.cancel("cancel")
        await asyncio.sleep(60)

    turn = begin()
    turn.start(work)
    await turn.ended()

    assert (turn.waits, turn.status) == (True, "cancelled")
    assert "output.value" not in turn_attributes(spans)


async def test_cancelled_exactly_once(spans: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is cancelled, the work sees one cancellation, and its clean-up is not disturbed."""
    monkeypatch.setattr(module, "PATIENCE_S", 60)
    seen: list[str] = []

    async def work(turn: Turn[int]) -> None:
        try:
            await turn.emit(1)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0.05)
            seen.append("cleaned up")
            raise

    turn = begin()
    turn.start(work)
    async for _ in turn:
        for cause in ("cancel", "cancel", "timeout", "disconnect"):
            turn.cancel(cause)
            await asyncio.sleep(0)

    assert seen == ["cancelled", "cleaned up"]
    said = turn_attributes(spans)
    assert (said["turn.status"], said["turn.cause"], said["cancelled"]) == ("cancelled", "cancel", True)
    assert said["langfuse.observation.level"] == "WARNING"


async def test_work_that_swallows_its_cancellation_is_left_behind(spans: Recorded) -> None:
    """The stream ends at once, the turn's spans with it; what the work emits afterwards reaches nobody."""
    go_on, left = asyncio.Event(), asyncio.Event()

    async def work(turn: Turn[int]) -> None:
        await turn.emit(1)
        try:
            await asyncio.sleep(60)
        except BaseException:  # noqa: BLE001 - a badly written tool
            await go_on.wait()
        try:
            await turn.emit(2)
        finally:
            left.set()

    turn = begin()
    turn.start(work)
    read = []
    async for number in turn:
        read.append(number)
        turn.cancel("cancel")

    assert read == [1]
    assert turn_attributes(spans)["turn.status"] == "cancelled"
    assert not left.is_set()
    go_on.set()
    await asyncio.wait_for(left.wait(), 60)
    assert read == [1]


async def test_no_step_starts_after_a_cancellation(spans: Recorded) -> None:
    """A tool that goes on in spite of it cannot start another step, neither in its graph nor by itself."""
    steps: list[str] = []
    started, over = asyncio.Event(), asyncio.Event()

    @tool
    async def another() -> str:
        """Note that it ran."""
        steps.append("another tool")
        return ""

    async def stubborn(state: MessagesState, config: RunnableConfig) -> None:
        steps.append("stubborn")
        started.set()
        try:
            await asyncio.sleep(60)
        except BaseException:  # noqa: BLE001 - a badly written tool
            await asyncio.sleep(0.3)
        try:
            await another.ainvoke({}, config)
        finally:
            over.set()

    async def following(state: MessagesState) -> None:
        steps.append("following")

    graph = StateGraph(MessagesState)
    graph.add_node("stubborn", stubborn)
    graph.add_node("following", following)
    graph.add_edge(START, "stubborn")
    graph.add_edge("stubborn", "following")

    async def work(turn: Turn[int]) -> None:
        running = asyncio.ensure_future(
            graph.compile().ainvoke({"messages": []}, {"callbacks": [CancellationCallback(turn)]})
        )
        await started.wait()
        await turn.emit(1)
        await running

    turn = begin()
    turn.start(work)
    async for _ in turn:
        turn.cancel("cancel")
    await asyncio.wait_for(over.wait(), 60)
    await asyncio.sleep(0.05)

    assert steps == ["stubborn"]
    assert not spans.ended_twice
    assert {span.name for span in spans.settled()} == {"turn", "LangGraph", "stubborn"}


async def test_back_pressure(spans: Recorded) -> None:
    """The work runs no further ahead of a slow reader than the buffer is long."""
    turn = begin()
    turn.start(forever)
    async for number in turn:
        await asyncio.sleep(0.2)
        assert turn.counts["events"] <= module.BUFFER + number + 2
        break

    await asyncio.wait_for(turn.ended(), 60)
    assert turn_attributes(spans)["turn.cause"] == "disconnect"


async def test_an_abandoned_reader(spans: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """A generator that nobody closes cancels its turn when it is collected; no context is left attached."""

    async def leave(turn: Turn[int]) -> None:
        reader = turn.__aiter__()
        await anext(reader)

    turn = begin()
    turn.start(forever)
    before = telemetry.current_trace()
    await leave(turn)
    gc.collect()
    await asyncio.wait_for(turn.ended(), 60)

    assert turn_attributes(spans)["turn.status"] == "cancelled"
    assert telemetry.current_trace() == before
    assert not [record for record in caplog.records if "detach" in record.getMessage()]


async def test_a_reader_that_is_cancelled_over_and_over(spans: Recorded) -> None:
    """A request's scope cancels at every await: the work is cancelled once and the turn ends."""
    turn = begin()
    turn.start(forever)
    async with anyio.create_task_group() as group:

        async def read() -> None:
            async for _ in turn:
                pass

        group.start_soon(read)
        await asyncio.sleep(0.05)
        group.cancel_scope.cancel()

    await asyncio.wait_for(turn.ended(), 60)
    assert turn_attributes(spans)["turn.status"] == "cancelled"


async def test_timeout(spans: Recorded) -> None:
    """A turn that takes too long has failed, and says so."""
    turn = begin(timeout_s=0.05)
    turn.start(forever)
    assert [number async for number in turn]

    assert isinstance(turn.error, TimeoutError)
    (span,) = spans.settled()
    assert (span.status.status_code.name, span.status.description) == (
        "ERROR",
        "TimeoutError: the turn took longer than 0.05 s",
    )


async def test_silence(spans: Recorded) -> None:
    """Who listens is told of silence, and misses nothing."""

    noticed, heard = asyncio.Event(), []

    async def work(turn: Turn[int]) -> None:
        await turn.emit(1)
        await noticed.wait()
        await turn.emit(2)

    turn = begin()
    turn.start(work)
    async for item in turn.listen(0.05):
        heard.append(item)
        if item is None:
            noticed.set()

    assert [item for item in heard if item] == [1, 2]
    assert None in heard
    turn_attributes(spans)


async def test_drain(spans: Recorded) -> None:
    """A service that stops waits for its turns, which are cancelled and end, settled."""
    settled: list[str | None] = []

    async def settle(turn: Turn[int]) -> None:
        await asyncio.sleep(0.05)
        settled.append(turn.status)

    turns = [begin() for _ in range(5)]
    for turn in turns:
        turn.start(forever, settle)
    await asyncio.sleep(0.05)
    await telemetry.drain()

    assert settled == ["cancelled"] * 5
    assert len(spans.settled()) == 5
    assert not spans.ended_twice


@pytest.mark.filterwarnings("error")
def test_a_loop_that_is_torn_down(spans: Recorded) -> None:
    """Even where the event loop ends under it, a turn's spans end."""

    async def main() -> None:
        begin().start(forever)
        await asyncio.sleep(0.05)

    asyncio.run(main())

    assert turn_attributes(spans)["turn.status"] == "cancelled"


async def test_settling_may_fail(spans: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that cannot be put in order is logged; the turn ends all the same."""

    async def work(turn: Turn[int]) -> None:
        await turn.emit(1)

    async def settle(turn: Turn[int]) -> None:
        raise OSError("the database has gone")

    turn = begin()
    turn.start(work, settle)
    assert [number async for number in turn] == [1]
    assert turn_attributes(spans)["turn.status"] == "completed"
    assert "could not be settled" in caplog.text


async def test_an_agent_that_cancels_itself_has_failed(spans: Recorded) -> None:
    """A cancellation that nobody asked for is a failure the user saw."""

    async def work(turn: Turn[int]) -> None:
        raise asyncio.CancelledError

    turn = begin()
    turn.start(work)
    assert [number async for number in turn] == []
    assert turn.status == "failed"
    assert turn_attributes(spans)["turn.status"] == "failed"


async def test_what_a_thread_does_late(spans: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """A sync tool runs on after the turn: its span is abandoned, its result ignored, what it starts marked late."""
    caplog.set_level(logging.WARNING)
    entered, go_on, done = threading.Event(), threading.Event(), threading.Event()

    @tool
    def slow() -> str:
        """Take too long."""
        entered.set()
        go_on.wait(60)
        with telemetry.span("late work"):
            pass
        done.set()
        return "too late"

    async def node(state: MessagesState, config: RunnableConfig) -> None:
        await slow.ainvoke({}, config)

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")

    async def work(turn: Turn[int]) -> None:
        await graph.compile(name="graph").ainvoke({"messages": []}, {"callbacks": [CancellationCallback(turn)]})

    turn = begin()
    turn.start(work)
    await asyncio.to_thread(entered.wait, 60)
    turn.cancel("cancel")
    assert [item async for item in turn] == []
    (tree,) = [spans.tree(["cancelled", "abandoned"])]
    go_on.set()
    await asyncio.to_thread(done.wait, 60)
    await asyncio.sleep(0.05)

    assert tree.splitlines() == [
        "turn AGENT cancelled=True",
        "  graph cancelled=True abandoned=True",
        "    node cancelled=True abandoned=True",
        "      slow TOOL cancelled=True abandoned=True",
    ]
    (late,) = [span for span in spans.settled() if span.name == "late work"]
    assert (late.attributes or {})["late"] is True
    assert len({span.context.trace_id for span in spans.settled() if span.context}) == 1
    assert not spans.ended_twice
    assert not caplog.records


async def test_a_sync_node_is_abandoned(spans: Recorded) -> None:
    """A node that runs in a thread cannot be stopped, and its span says so."""
    entered, go_on = threading.Event(), threading.Event()

    def node(state: MessagesState) -> None:
        entered.set()
        go_on.wait(60)

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")

    async def work(turn: Turn[int]) -> None:
        await graph.compile(name="graph").ainvoke({"messages": []}, {"callbacks": [CancellationCallback(turn)]})

    turn = begin()
    turn.start(work)
    await asyncio.to_thread(entered.wait, 60)
    turn.cancel("cancel")
    assert [item async for item in turn] == []
    go_on.set()

    assert spans.tree(["cancelled", "abandoned"]).splitlines() == [
        "turn AGENT cancelled=True",
        "  graph cancelled=True abandoned=True",
        "    node cancelled=True abandoned=True",
    ]


async def test_turns_side_by_side_keep_apart(spans: Recorded) -> None:
    """Each span of many turns at once carries the ids of its own turn."""

    async def work(turn: Turn[int]) -> None:
        for number in range(3):
            with telemetry.span("step"):
                await asyncio.sleep(0.001)
            await turn.emit(number)

    async def run(number: int) -> AsyncIterator[int] | None:
        turn = Turn[int]("agent", run_id=uuid4(), session_id=f"t-{number}")
        turn.start(work)
        async for _ in turn:
            pass
        return None

    await asyncio.gather(*(run(number) for number in range(20)))

    sessions: dict[int, set[Any]] = {}
    for span in spans.settled():
        assert span.context
        sessions.setdefault(span.context.trace_id, set()).add((span.attributes or {})["session.id"])
    assert len(sessions) == 20
    assert all(len(found) == 1 for found in sessions.values())
