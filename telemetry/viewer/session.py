"""A session as a conversation: the question and the answer of each of its traces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry.viewer.messages import answer, question
from telemetry.viewer.observation import Observation, text
from telemetry.viewer.score import Score
from telemetry.viewer.summary import ToolUse, TraceSummary

SHORT = 200
# Longer texts are truncated, because a page shows many turns.
LONG = 10_000
METADATA = "langfuse.trace.metadata."

KeyObservations = Mapping[str, Observation]


@dataclass(frozen=True)
class EarlierTrace:
    """A trace that this one continues, and how."""

    trace_id: str
    how: str


@dataclass(frozen=True)
class SessionTurn:
    """One trace of a session; one that is not part of the conversation has no question and no answer."""

    summary: TraceSummary
    question: str
    answer: str
    failure: str
    latest: str
    attempt: str
    tools: Sequence[ToolUse]
    scores: Sequence[Score]
    earlier: Sequence[EarlierTrace]

    @property
    def is_turn(self) -> bool:
        """Whether it is a part of the conversation."""
        return bool(self.question or self.answer or self.attempt or self.latest)


def session_turn(
    summary: TraceSummary, key_observations: KeyObservations, tools: Sequence[ToolUse], scores: Sequence[Score]
) -> SessionTurn:
    """Return the turn of a trace, as far as its spans have arrived."""
    agent = key_observations.get("agent")
    failed = next((each for each in (agent, key_observations.get("root")) if each and each.level == "ERROR"), None)
    asked = (question(key_observations[role]) for role in ("agent", "root", "first") if role in key_observations)
    answered = (answer(key_observations[role]) for role in ("agent", "root", "last") if role in key_observations)
    return SessionTurn(
        summary,
        _cut(next(filter(None, asked), "")),
        _cut(next(filter(None, answered), "")),
        failed.message if failed else "",
        _latest(key_observations["newest"]) if summary.running else "",
        _attribute(agent, "turn.attempt"),
        tools,
        scores,
        _earlier(summary.trace_id, key_observations),
    )


def followers(turns: Sequence[SessionTurn]) -> dict[str, list[str]]:
    """Return, by trace id, the traces among these that continue it."""
    found: dict[str, list[str]] = {}
    for each in turns:
        for earlier in each.earlier:
            found.setdefault(earlier.trace_id, []).append(each.summary.trace_id)
    return found


def _latest(observation: Observation) -> str:
    return f"{observation.span.name} {text(observation.output or '')[:SHORT]}".strip()


def _cut(words: str) -> str:
    return words if len(words) <= LONG else f"{words[:LONG]} …"


def _earlier(trace_id: str, key_observations: KeyObservations) -> list[EarlierTrace]:
    outer = [key_observations[role] for role in ("agent", "root") if role in key_observations]
    linked = [link.trace_id for each in outer for link in each.span.links]
    named = [_attribute(each, f"{METADATA}resumes_trace") for each in key_observations.values()]
    how = next((how for each in key_observations.values() if (how := _how(each))), "linked to")
    return [EarlierTrace(found, how) for found in dict.fromkeys([*linked, *named]) if found and found != trace_id]


def _how(observation: Observation) -> str:
    resumed = _attribute(observation, f"{METADATA}resumes")
    if not resumed:
        return ""
    return "another attempt after" if resumed == _attribute(observation, f"{METADATA}run") else "answers"


def _attribute(observation: Observation | None, name: str) -> str:
    value: Any = observation.attributes.get(name) if observation else None
    return "" if value is None else text(value)
