"""A session as a conversation: what was asked and answered in each of its traces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry.viewer.messages import Side, came_in, came_out
from telemetry.viewer.observation import Observation, text
from telemetry.viewer.score import Score
from telemetry.viewer.summary import Summary, Tool

STATUSES = {"completed", "failed", "cancelled", "waiting", "lost"}
SHORT = 200
# What is longer is read in the trace: a page shows many turns.
LONG = 10_000
METADATA = "langfuse.trace.metadata."

Telling = Mapping[str, Observation]


@dataclass(frozen=True)
class Earlier:
    """A trace that this one goes back to, and how."""

    trace_id: str
    how: str


@dataclass(frozen=True)
class Turn:
    """One trace of a session; in a trace that is no part of the talk nothing was asked or answered."""

    summary: Summary
    status: str
    asked: str
    answered: str
    failure: str
    latest: str
    attempt: str
    tools: Sequence[Tool]
    scores: Sequence[Score]
    earlier: Sequence[Earlier]

    @property
    def talk(self) -> bool:
        """Whether it is a part of the conversation."""
        return bool(self.asked or self.answered or self.attempt or self.latest)


def turn(summary: Summary, telling: Telling, tools: Sequence[Tool], scores: Sequence[Score]) -> Turn:
    """Return what a trace says of one turn, as far as it has come."""
    agent = telling.get("agent")
    failed = next((each for each in (agent, telling.get("root")) if each and each.level == "ERROR"), None)
    return Turn(
        summary,
        _status(summary, agent),
        _asked(telling),
        _answered(telling),
        failed.message if failed else "",
        _latest(telling["newest"]) if summary.state == "running" else "",
        _said(agent, "turn.attempt"),
        tools,
        scores,
        _earlier(summary.trace_id, telling),
    )


def later(turns: Sequence[Turn]) -> dict[str, list[str]]:
    """Return, by trace id, the traces among these that go back to it."""
    found: dict[str, list[str]] = {}
    for each in turns:
        for earlier in each.earlier:
            found.setdefault(earlier.trace_id, []).append(each.summary.trace_id)
    return found


def _status(summary: Summary, agent: Observation | None) -> str:
    said = _said(agent, "turn.status")
    return said if said in STATUSES else summary.state


def _asked(telling: Telling) -> str:
    sides = [came_in(telling[role]) for role in ("agent", "root", "first") if role in telling]
    return next((words for side in sides if (words := _words(side, "user"))), "")


def _answered(telling: Telling) -> str:
    sides = [came_out(telling[role]) for role in ("agent", "root", "last") if role in telling]
    return next((words for side in sides if (words := _words(side, "assistant"))), "")


def _latest(seen: Observation) -> str:
    return f"{seen.span.name} {text(seen.output or '')[:SHORT]}".strip()


def _words(side: Side, role: str) -> str:
    said = [message.content for message in side.messages if message.role == role and message.content]
    if said:
        return _cut(said[-1])
    return "" if side.messages or side.value is None else _cut(_plain(side.value))


def _plain(value: Any) -> str:
    """Return the question and its options, where an agent asked with these, else the value."""
    match value:
        case {"question": str(question), "options": [*options]}:
            return f"{question} ({', '.join(map(text, options))})"
        case {"question": str(question)}:
            return question
    return text(value)


def _cut(words: str) -> str:
    return words if len(words) <= LONG else f"{words[:LONG]} …"


def _earlier(trace_id: str, telling: Telling) -> list[Earlier]:
    linked = [link.trace_id for role in ("agent", "root") if role in telling for link in telling[role].span.links]
    told = [_said(each, f"{METADATA}resumes_trace") for each in telling.values()]
    how = next((how for each in telling.values() if (how := _how(each))), "linked to")
    return [Earlier(found, how) for found in dict.fromkeys([*linked, *told]) if found and found != trace_id]


def _how(seen: Observation) -> str:
    resumed = _said(seen, f"{METADATA}resumes")
    if not resumed:
        return ""
    return "another attempt after" if resumed == _said(seen, f"{METADATA}run") else "answers"


def _said(seen: Observation | None, name: str) -> str:
    value: Any = seen.attributes.get(name) if seen else None
    return "" if value is None else text(value)
