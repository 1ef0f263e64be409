"""What each agent's turns look like, in every ending: the trees stand in `tests/golden`, one file an agent.

`GOLDEN=write python -m pytest tests/test_golden_trees.py` writes them anew.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import telemetry
from app.client import AgentClient, AgentError
from app.schema import RunEvent, StreamEvent, TokenEvent
from telemetry.settings import Settings
from telemetry.testing import Recorded, recording, span_tree
from tests.flawed_agents import TABLE, endless
from tests.service import service

GOLDEN = Path(__file__).parent / "golden"
SHOWN = ("turn.status", "turn.tool_errors", "cancelled", "abandoned", "interrupted")
OK = {
    "chatbot": "What is 12*34?",
    "supervisor": "What is 12*34 and what time is it?",
    "research": "Look up sampling and search for baggage.",
    "interrupt": "Book a table for 4 at 20:00.",
}
TOOL_ERROR = {"chatbot": "What is 1/0?", "supervisor": "What is 1/0?", "research": "Read Trace."}
STORY = "Tell me a long story"
# Flows that run to their end are compared in every attribute by tests/telemetry/instrumentation/langchain/
# test_recorder_conformance.py, which tells more than a tree: here one recorder is enough for them. How a turn fails, is
# stopped or runs out of time is the service's doing, and looked at with both.
by_one_recorder = pytest.mark.parametrize("stage", ["openinference"], indirect=True, scope="module")
FAILURES = {"model error before the first token": "/fail", "model error after the first token": "/fail-after 3 story"}


@dataclass
class Stage:
    """Services over one recording: a fast one, a slow one, and two whose turns may take a short time only."""

    spans: Recorded
    fast: str
    slow: str
    hasty: Sequence[str]


@pytest.fixture(scope="module", params=["openinference", "recorder"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Both ways to record LangChain's runs give the same trees."""
    folder = tmp_path_factory.mktemp("golden")
    with (
        recording(Settings.model_construct(langchain=request.param)) as spans,
        service(folder / "fast", TABLE) as fast,
        service(folder / "slow", TABLE, DEMO_PACE_S=0.1) as slow,
        service(folder / "hasty", TABLE, DEMO_PACE_S=0.03, TURN_TIMEOUT_S=1.5) as hasty,
        service(folder / "less-hasty", TABLE, DEMO_PACE_S=0.3, TURN_TIMEOUT_S=15) as less_hasty,
    ):
        yield Stage(spans, fast, slow, (hasty, less_hasty))


def invoked(client: AgentClient, message: str, thread_id: str) -> str | None:
    try:
        return client.invoke(message, thread_id=thread_id).trace_id
    except AgentError as error:
        return error.trace_id


def streamed(client: AgentClient, message: str, thread_id: str) -> str | None:
    return [
        event for event in client.stream(message, thread_id=thread_id) if isinstance(event, RunEvent)
    ].pop().trace_id


def disconnected(client: AgentClient, message: str, thread_id: str) -> str | None:
    events = client.stream(message, thread_id=thread_id)
    trace_id = _third_token(events, lambda _: None)
    events.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator
    return trace_id


def cancelled(client: AgentClient, message: str, thread_id: str) -> str | None:
    events = client.stream(message, thread_id=thread_id)
    trace_id = _third_token(events, client.cancel)
    assert list(events)
    return trace_id


def _third_token(events: Iterator[StreamEvent], then: Callable[[str], None]) -> str | None:
    run, tokens = next(events), 0
    assert isinstance(run, RunEvent)
    while tokens < 3:
        tokens += isinstance(next(events), TokenEvent)
    then(run.run_id)
    return run.trace_id


def tree(spans: Recorded, trace_id: str | None, shown: Sequence[str] = SHOWN) -> str:
    of_turn = [span for span in spans.settled(60) if span.context and f"{span.context.trace_id:032x}" == trace_id]
    assert not spans.ended_twice
    return span_tree(of_turn, shown)


def snapshots(agent: str) -> dict[str, str]:
    text = (GOLDEN / f"{agent}.txt").read_text() if (GOLDEN / f"{agent}.txt").exists() else ""
    found = re.findall(r"^== (.+)\n\n((?:.+\n)+)", text, re.MULTILINE)
    return {case: shown.strip() for case, shown in found}


def check(agent: str, case: str, shown: str) -> None:
    """The tree is the one that stands in the file."""
    known = snapshots(agent)
    if os.environ.get("GOLDEN") == "write":
        known[case] = shown
        sections = [f"== {case}\n\n{known[case]}\n" for case in sorted(known)]
        (GOLDEN / f"{agent}.txt").write_text("\n".join(sections))
    assert shown == known.get(case)


def check_timeout(stage: Stage, agent: str, case: str, message: str, run: Callable[..., str | None]) -> None:
    """The tree of a turn that runs out of time stands in the file; a busy machine needs more time to come so far."""
    shown = ""
    for url in stage.hasty:
        with telemetry.suppress_instrumentation():
            trace_id = run(AgentClient(url, agent), message, f"{agent}-{run.__name__}")
        shown = tree(stage.spans, trace_id)
        if shown == snapshots(agent).get(case):
            break
    check(agent, case, shown)


@by_one_recorder
@pytest.mark.parametrize("agent", OK)
@pytest.mark.parametrize("run", [invoked, streamed])
def test_ok(stage: Stage, agent: str, run: Callable[..., str | None]) -> None:
    """The agent does what it is for; the one that asks, waits."""
    with telemetry.suppress_instrumentation():
        trace_id = run(AgentClient(stage.fast, agent), OK[agent], f"{agent}-{run.__name__}")
    check(agent, f"ok, {run.__name__}", tree(stage.spans, trace_id))


@by_one_recorder
@pytest.mark.parametrize("agent", TOOL_ERROR)
@pytest.mark.parametrize("run", [invoked, streamed])
def test_tool_error(stage: Stage, agent: str, run: Callable[..., str | None]) -> None:
    """A tool fails, the graph handles it, and the turn has one tool error and no failure."""
    with telemetry.suppress_instrumentation():
        trace_id = run(AgentClient(stage.fast, agent), TOOL_ERROR[agent], f"{agent}-tool-{run.__name__}")
    check(agent, f"tool error, {run.__name__}", tree(stage.spans, trace_id))


@by_one_recorder
@pytest.mark.parametrize("run", [invoked, streamed])
def test_node_error(stage: Stage, run: Callable[..., str | None]) -> None:
    """A node breaks: it, its graph and the turn have failed, and nothing beside them."""
    with telemetry.suppress_instrumentation():
        trace_id = run(AgentClient(stage.fast, "broken_node"), "Hello", f"node-{run.__name__}")
    check("broken_node", f"node error, {run.__name__}", tree(stage.spans, trace_id))


@pytest.mark.parametrize("agent", OK)
@pytest.mark.parametrize("run", [invoked, streamed])
@pytest.mark.parametrize("case", FAILURES)
def test_model_error(stage: Stage, agent: str, case: str, run: Callable[..., str | None]) -> None:
    """The model fails, before it has said anything or in the midst of it."""
    with telemetry.suppress_instrumentation():
        trace_id = run(
            AgentClient(stage.fast, agent), FAILURES[case], f"{agent}-{case.replace(' ', '-')}-{run.__name__}"
        )
    check(agent, f"{case}, {run.__name__}", tree(stage.spans, trace_id))


@pytest.mark.parametrize("agent", OK)
@pytest.mark.parametrize("run", [cancelled, disconnected])
def test_stopped(stage: Stage, agent: str, run: Callable[..., str | None]) -> None:
    """The turn is stopped while the model speaks."""
    with telemetry.suppress_instrumentation():
        trace_id = run(AgentClient(stage.slow, agent), STORY, f"{agent}-{run.__name__}")
    check(agent, run.__name__, tree(stage.spans, trace_id))


@pytest.mark.parametrize("agent", OK)
@pytest.mark.parametrize("run", [invoked, streamed])
def test_timeout(stage: Stage, agent: str, run: Callable[..., str | None]) -> None:
    """The turn takes too long."""
    check_timeout(stage, agent, f"timeout, {run.__name__}", STORY, run)


@pytest.mark.parametrize("agent", ["slow", "threaded"])
def test_stopped_in_a_tool(stage: Stage, agent: str) -> None:
    """The turn times out in a tool: one that could be stopped, one whose thread goes on."""
    with endless():
        check_timeout(stage, agent, "timeout in a tool", "What is 12*34?", streamed)


@pytest.mark.parametrize("agent", OK)
def test_every_span_is_stamped(stage: Stage, agent: str) -> None:
    """Session, user, agent, name, tags and run stand on every span of each agent's turn, and are equal."""
    with telemetry.suppress_instrumentation():
        answer = AgentClient(stage.fast, agent, user_id="ada").invoke(OK[agent], thread_id=f"{agent}-stamped")
    for span in stage.spans.settled():
        if span.context and f"{span.context.trace_id:032x}" == answer.trace_id:
            stamps = span.attributes or {}
            assert {key: stamps.get(key) for key in ("session.id", "user.id", "langfuse.trace.name")} == {
                "session.id": f"{agent}-stamped",
                "user.id": "ada",
                "langfuse.trace.name": agent,
            }, span.name
            assert stamps["langfuse.trace.metadata.run"] == answer.run_id, span.name
            assert stamps["langfuse.trace.metadata.agent"] == agent, span.name
            assert stamps["langfuse.trace.tags"] == (agent,), span.name
