"""Whatever mix of turns, endings and leavings: every span ends once, in its own trace, under its own parent."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from app.client import AgentClient, AgentError
from app.schema import RunEvent
from telemetry.testing import Recorded, recording
from tests.flawed_agents import TABLE
from tests.service import service

TURNS = 100
AT_ONCE = 20
MESSAGES = {
    "chatbot": ["What is 12*34?", "What is 1/0?", "Tell me a story", "/fail", "/fail-after 3 story"],
    "supervisor": ["What is 12*34 and what time is it?", "/fail"],
    "research": ["Look up sampling and search for baggage.", "Read Trace."],
    "interrupt": ["Book a table for 4 at 20:00.", "Hello"],
    "broken_node": ["Hello"],
    "slow": ["What is 12*34?"],
    "stubborn": ["What is 12*34?"],
    "threaded": ["What is 12*34?"],
    "asks_in_node": ["Hello", "fail"],
}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[tuple[str, Recorded]]:
    # The service goes last: what a thread starts late is recorded too.
    with recording() as spans, service(tmp_path, TABLE, DEMO_PACE_S=0.002, TURN_TIMEOUT_S=1.5) as address:
        yield address, spans


async def turn(url: str, number: int, dice: random.Random) -> str | None:
    """One turn by a client that stays, leaves or cancels; returns its trace."""
    agent = dice.choice(list(MESSAGES))
    client = AgentClient(url, agent, user_id=f"user-{number}")
    message, thread_id = dice.choice(MESSAGES[agent]), f"t-{number}"
    if dice.random() < 0.2:
        try:
            return (await client.ainvoke(message, thread_id=thread_id)).trace_id
        except AgentError as error:
            return error.trace_id
    return await _streamed(client, message, thread_id, dice)


async def _streamed(client: AgentClient, message: str, thread_id: str, dice: random.Random) -> str | None:
    leave, cancel = (dice.choice([None, dice.randrange(12)]) for _ in range(2))
    events: Any = client.astream(message, thread_id=thread_id)
    trace_id, run_id, count = None, "", 0
    async for event in events:
        if isinstance(event, RunEvent):
            trace_id, run_id = event.trace_id, event.run_id
        if count == cancel:
            await client.acancel(run_id)
        if count == leave:
            break
        count += 1
    await events.aclose()
    return trace_id


async def drive(url: str, seed: int) -> list[str | None]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str | None:
        async with places:
            with telemetry.suppress_instrumentation():
                return await turn(url, number, random.Random(seed * TURNS + number))

    return await asyncio.gather(*(one(number) for number in range(TURNS)))


@pytest.mark.parametrize("seed", [1, 2])
def test_every_span_ends_once_in_its_own_trace(
    url: tuple[str, Recorded], caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """Every started span ends, exactly once; one trace a turn, no orphan, no foreign id, no context left attached."""
    address, spans = url
    traces = asyncio.run(drive(address, seed))

    ended = spans.settled(60)
    # On a busy machine a request may find the database locked; the client sends it again, or fails with its trace.
    refused = {_trace(span) for span in ended if (span.attributes or {}).get("http.response.status_code") == 503}
    finished = [span for span in ended if not _is_cancel(span) and _trace(span) not in refused]
    assert spans.ended_twice == []
    assert None not in traces
    assert len(set(traces)) == TURNS
    assert {_trace(span) for span in finished} == set(traces) - refused
    assert not [span.name for span in finished if _is_orphan(span, finished)]
    assert not [record for record in caplog.records if "detach" in record.getMessage()]
    of_trace: dict[str, list[ReadableSpan]] = defaultdict(list)
    for span in finished:
        of_trace[_trace(span)].append(span)
    for number, trace in enumerate(traces):
        if trace in refused:
            continue
        stamps: list[dict[str, Any]] = [dict(span.attributes or {}) for span in of_trace[str(trace)]]
        assert {each.get("session.id") for each in stamps} == {f"t-{number}"}
        assert {each.get("user.id") for each in stamps} == {f"user-{number}"}
        assert len({each.get("langfuse.trace.metadata.run") for each in stamps}) == 1
        assert sum(span.name == "turn" for span in of_trace[str(trace)]) == 1


def _trace(span: ReadableSpan) -> str:
    assert span.context
    return f"{span.context.trace_id:032x}"


def _is_cancel(span: ReadableSpan) -> bool:
    return span.name.endswith("/cancel")


def _is_orphan(span: ReadableSpan, spans: list[ReadableSpan]) -> bool:
    known = {each.context.span_id for each in spans if each.context}
    return span.parent is not None and span.parent.span_id not in known
