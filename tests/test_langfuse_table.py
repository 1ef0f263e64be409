"""What Langfuse makes of every agent's turns, by its own rules, from the bytes as they leave.

`TABLE=print python -m pytest -n0 -s tests/test_langfuse_table.py -m "chaos or not chaos"` prints the table.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from app.client import AgentClient, AgentError, Refused
from app.schema import RunEvent, StreamEvent, TokenEvent
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare
from telemetry.settings import Settings
from telemetry.testing import Recorded, recording
from tests.flawed_agents import TABLE
from tests.processes import until
from tests.service import service
from tests.telemetry.langfuse_rules import Observation, Trace, traces, violations
from ui.tracing import chat_turn

QUESTIONS = {
    "chatbot": "What is 12*34?",
    "supervisor": "What is 12*34 and what time is it?",
    "research": "Look up sampling and search for baggage.",
    "interrupt": "Book a table for 4 at 20:00.",
    "bg-task": "Work for 0.1 seconds.",
    "coding": "Run `print(6*7)`",
}
STORY, FAIL = "Tell me a long story", "/fail-after 3 story"
# A background run that nobody follows any more tells it to the end.
SHORT_STORY = "Tell me a story of 30 words"
CAUSES = {"cancelled": "cancelled on request", "disconnected": "cancelled: the client disconnected"}
PRICES = "demo=1.5/2.5"
ENDINGS = {
    "invoked": ["ok", "failed", "cancelled", "disconnected"],
    "streamed": ["ok", "failed", "cancelled", "disconnected"],
    "queued": ["ok", "failed", "cancelled", "disconnected"],
    "chat": ["ok", "failed"],
}
# What every run of the tests looks at; `make chaos` looks at all.
OFTEN = {("chatbot", how, ending) for how, endings in ENDINGS.items() for ending in endings}
OFTEN -= {("chatbot", "queued", "failed")}  # it is tried three times
OFTEN |= {("supervisor", "streamed", "ok"), ("interrupt", "invoked", "resumed"), ("interrupt", "queued", "resumed")}


@dataclass
class Stage:
    """A service, its clients and what it has recorded."""

    spans: Recorded
    url: str

    def traces(self, thread_id: str, turns: int, before: int = 0) -> list[Trace]:
        """What Langfuse has of the thread's latest turns, decoded from the bytes that would be sent."""
        until(lambda: len(self._turns(thread_id)) >= turns, 60)
        ids = {span.context.trace_id for span in self._turns(thread_id)[before:] if span.context}
        of_turns = [span for span in self.spans.settled(60) if span.context and span.context.trace_id in ids]
        shown = seen(of_turns, "langfuse")
        assert views(seen(of_turns, "all")) == views(shown)
        assert essentials(seen(of_turns, "genai")) == essentials(shown)
        return shown

    def _turns(self, thread_id: str) -> list[ReadableSpan]:
        found = [span for span in self.spans.get_finished_spans() if span.name == "turn" and span.attributes]
        return [span for span in found if span.attributes and span.attributes.get("session.id") == thread_id]


def seen(spans: Sequence[ReadableSpan], shape: str) -> list[Trace]:
    """What Langfuse has of these spans in this format."""
    stages = build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape}))
    return traces(otlp.decode(b"".join(prepare(span, stages) for span in spans), "application/x-protobuf"))


def views(shown: Sequence[Trace]) -> list[dict[str, Any]]:
    """What a person sees of them."""
    return [each.view() for trace in shown for each in trace.observations]


def essentials(shown: Sequence[Trace]) -> list[Any]:
    """What is the same wherever messages stand: types, models, tokens, whose it is, the question and the answer."""
    return [
        [
            (in_words(trace.root.input), in_words(trace.root.output)) if trace.root else None,
            *[(each.type, each.model, each.usage, each.span.attributes["session.id"]) for each in trace.observations],
        ]
        for trace in shown
    ]


def in_words(said: Any) -> Any:
    """A question or an answer as text, also where it is the only message of the GenAI conventions."""
    match said:
        case [{"parts": [{"type": "text", "content": str() as text}]}]:
            return text
        case _:
            return said


@pytest.fixture(scope="module", params=["openinference", "recorder"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    settings: dict[str, Any] = {"DEMO_PACE_S": 0.01, "MODEL_PRICES": PRICES}
    with (
        recording(Settings.model_construct(langchain=request.param)) as spans,
        service(tmp_path_factory.mktemp("table"), TABLE, **settings) as url,
    ):
        yield Stage(spans, url)


def cases() -> Iterator[Any]:
    for agent in QUESTIONS:
        for how, endings in ENDINGS.items():
            for ending in [*endings, *(["resumed"] if agent == "interrupt" else [])]:
                marks = () if (agent, how, ending) in OFTEN else pytest.mark.chaos
                yield pytest.param(agent, how, ending, marks=marks)


@pytest.mark.parametrize(("agent", "how", "ending"), list(cases()))
def test_nothing_is_missing_and_nothing_is_twice(stage: Stage, agent: str, how: str, ending: str) -> None:
    """Question, answer, outcome, tokens and cost are where Langfuse looks for them, each once."""
    thread, client = f"{agent}-{how}-{ending}", AgentClient(stage.url, agent, user_id="ada")
    if ending == "resumed":
        with suppressed():
            RUNS[how](client, QUESTIONS[agent], thread)
        stage.traces(thread, 1)
    message = {"ok": QUESTIONS[agent], "resumed": "yes", "failed": FAIL}.get(ending, STORY)
    if (how, ending) == ("queued", "disconnected"):
        message = SHORT_STORY
    if how == "chat":
        with suppress(AgentError), chat_turn(message, thread_id=thread, user_id="ada", agent=agent) as root:
            root.set_attribute("output.value", RUNS["streamed"](client, message, thread))
    else:
        with suppressed():
            STOPPED.get((how, ending), RUNS[how])(client, message, thread)

    tried = 3 if (how, ending) == ("queued", "failed") else 1
    before = int(ending == "resumed")
    shown = stage.traces(thread, tried + before, before)
    attempts, trace = shown[1:], shown[0]
    if os.environ.get("TABLE") == "print":
        print(row(agent, how, ending, trace))  # noqa: T201 - it is what was asked for
    assert defects(trace, agent, how, ending, message) == []
    assert len(attempts) == tried - 1
    assert [(each.root.input, each.root.level) for each in attempts if each.root] == [(FAIL, "ERROR")] * len(attempts)


def defects(trace: Trace, agent: str, how: str, ending: str, message: str) -> list[str]:
    """What a person would miss, or find twice."""
    assert trace.root
    is_queued = how == "queued"
    goes_on = is_queued and ending == "disconnected"  # a background run needs no client
    answered = goes_on or ending in ("ok", "resumed")
    told = trace.named("turn")[0] if is_queued else trace.root
    expected = {
        "title": "chat turn" if how == "chat" else agent,
        "question": message,
        "level": "DEFAULT" if answered else "ERROR" if ending == "failed" else "WARNING",
        "cause": "" if answered else CAUSES.get(ending, told.message),
        "answered": answered or ending == "failed",
        "asks": agent == "interrupt" and ending == "ok",
        "queued": is_queued,
        "calls": len(trace.of("tool")) if ending != "resumed" else 0,
        "arguments have names": True,
    }
    found = {
        "title": trace.root.title,
        "question": trace.root.input,
        "level": told.level,
        "cause": told.message,
        "answered": bool(told.output) if answered else expected["answered"],
        "asks": "Shall I" in str(told.output),
        "queued": str(trace.root.output).startswith("Queued as run "),
        "calls": calls_of(trace),
        "arguments have names": all(isinstance(each.input, dict) for each in trace.of("tool")),
    }
    wrong = [f"{what}: {found[what]!r}, not {right!r}" for what, right in expected.items() if found[what] != right]
    if ending == "failed" and "failed after 3 words" not in told.message:
        wrong.append(f"the failure is called {told.message!r}")
    answer = told.output if answered else None
    return [
        *violations(trace, answered=answered or is_queued),
        *wrong,
        *repeated(trace, "input", message),
        *(repeated(trace, "output", answer) if answer else ()),
        *miscounted(trace, paid=answered),
    ]


def repeated(trace: Trace, place: str, text: Any) -> Iterator[str]:
    """A turn's own text on more or fewer than one span; what models and tools say is theirs."""
    own = [each for each in trace.observations if each.type not in ("generation", "tool", "retriever")]
    names = [each.span.name for each in own if getattr(each, place) == text]
    if len(names) != 1:
        yield f"the {place} is on {names}"


def miscounted(trace: Trace, *, paid: bool) -> Iterator[str]:
    """Tokens and dollars that are not those of the model's calls."""
    used = [each.usage for each in trace.of("generation")]
    said = trace.named("turn")[0].span.attributes
    tokens = sum(sum(each.values()) for each in used)
    if tokens != said.get("turn.input_tokens", 0) + said.get("turn.output_tokens", 0):
        yield f"{tokens} tokens"
    priced = sum(1.5e-6 * each.get("input", 0) + 2.5e-6 * each.get("output", 0) for each in used)
    if abs(cost_of(trace) - priced) > 1e-12 or (paid and not priced):
        yield f"it costs {cost_of(trace)}, not {priced}"


def calls_of(trace: Trace) -> int:
    return sum(len(each.tool_calls) for each in trace.observations)


def cost_of(trace: Trace) -> float:
    return sum(each.cost.get("total", 0) for each in trace.observations)


def row(agent: str, how: str, ending: str, trace: Trace) -> str:
    root = trace.root
    assert root
    both = [each.span.name for each in trace.observations if None not in (each.input, each.output)]
    cells: Sequence[Any] = (agent, how, ending, root.title, root.level, root.message, root.input, root.output)
    sums = (
        f"{calls_of(trace)} calls, {len(trace.of('tool'))} tools, ${cost_of(trace):.6f}, with both: {', '.join(both)}"
    )
    return f"| {' | '.join(str(cell)[:60] for cell in cells)} | {sums} |"


# --- ways to ask ---


def suppressed() -> AbstractContextManager[None]:
    return telemetry.suppress_instrumentation()


def invoked(client: AgentClient, message: str, thread_id: str) -> str:
    try:
        return client.invoke(message, thread_id=thread_id).content
    except AgentError as error:
        return str(error)


def streamed(client: AgentClient, message: str, thread_id: str) -> str:
    events = list(client.stream(message, thread_id=thread_id))
    if error := next((event for event in events if event.type == "error"), None):
        raise AgentError(error.message)
    return str(next(event for event in reversed(events) if event.type in ("message", "interrupt")))


def queued(client: AgentClient, message: str, thread_id: str) -> str:
    run = client.submit(message, thread_id=thread_id)
    until(lambda: client.get_run(run.run_id).status in ("completed", "failed", "waiting", "cancelled"), 60)
    return run.run_id


def cancelled(client: AgentClient, message: str, thread_id: str) -> None:
    events = client.stream(message, thread_id=thread_id)
    client.cancel(third_token(events))
    assert list(events)


def disconnected(client: AgentClient, message: str, thread_id: str) -> None:
    events = client.stream(message, thread_id=thread_id)
    third_token(events)
    events.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator


def invoked_and_cancelled(client: AgentClient, message: str, thread_id: str) -> None:
    async def cancel() -> None:
        call, run_id = await invoked_in_a_task(client, message, thread_id)
        await client.acancel(run_id)
        with pytest.raises(AgentError, match="cancelled before the agent had answered"):
            await call

    asyncio.run(cancel())


def invoked_and_disconnected(client: AgentClient, message: str, thread_id: str) -> None:
    async def disconnect() -> None:
        call, _ = await invoked_in_a_task(client, message, thread_id)
        call.cancel()
        await asyncio.wait([call])

    asyncio.run(disconnect())


async def invoked_in_a_task(client: AgentClient, message: str, thread_id: str) -> tuple[asyncio.Task[Any], str]:
    """The call, and its run, which is at work."""
    call = asyncio.create_task(client.ainvoke(message, thread_id=thread_id))
    while not call.done():
        with suppress(Refused):  # there is no such thread yet
            state = await client.aget_thread(thread_id)
            if state.status == "running" and state.run_id:
                return call, state.run_id
        await asyncio.sleep(0.01)
    raise AssertionError(f"it has ended already: {call}")


def followed_and_disconnected(client: AgentClient, message: str, thread_id: str) -> None:
    """Nobody follows the run any more, which goes on."""
    run = client.submit(message, thread_id=thread_id)
    events = client.follow(run.run_id)
    assert isinstance(next(events), RunEvent)
    events.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator
    until(lambda: client.get_run(run.run_id).status == "completed", 60)


def cancelled_in_the_queue(client: AgentClient, message: str, thread_id: str) -> None:
    run = client.submit(message, thread_id=thread_id)
    events = client.follow(run.run_id)
    assert isinstance(next(events), RunEvent)  # its agent is at work
    client.cancel(run.run_id)
    until(lambda: client.get_run(run.run_id).status == "cancelled", 60)


def third_token(events: Iterator[StreamEvent]) -> str:
    """The run of this stream, once three words of it have come."""
    run, tokens = next(events), 0
    assert isinstance(run, RunEvent)
    while tokens < 3:
        tokens += isinstance(next(events), TokenEvent)
    return run.run_id


Ask = Callable[[AgentClient, str, str], Any]
RUNS: dict[str, Ask] = {"invoked": invoked, "streamed": streamed, "queued": queued, "chat": streamed}
STOPPED: dict[tuple[str, str], Ask] = {
    ("streamed", "failed"): lambda *asked: suppressing(streamed, *asked),
    ("streamed", "cancelled"): cancelled,
    ("streamed", "disconnected"): disconnected,
    ("invoked", "cancelled"): invoked_and_cancelled,
    ("invoked", "disconnected"): invoked_and_disconnected,
    ("queued", "cancelled"): cancelled_in_the_queue,
    ("queued", "disconnected"): followed_and_disconnected,
}


def suppressing(ask: Ask, *asked: Any) -> None:
    with suppress(AgentError):
        ask(*asked)


def test_each_observation_is_read_as_langfuse_reads_it() -> None:
    """The title is what Langfuse prefers to a span's name."""
    assert (
        Observation(otlp.Span("1" * 32, "1" * 16, None, "GET /", "SERVER", 1, 2, {"logfire.msg": "ada"})).title == "ada"
    )
