"""One question and its answer, read from a stream's events or from a thread's history."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from app.schema import (
    ChatHistory,
    ChatMessage,
    EndEvent,
    ErrorEvent,
    Figures,
    FileInfo,
    InterruptEvent,
    MessageEvent,
    RunEvent,
    StreamEvent,
    TaskEvent,
    TokenEvent,
    TurnInfo,
    Vote,
)


@dataclass
class ToolUse:
    """A tool that the agent called; no output yet while it works."""

    name: str
    input: dict[str, Any]
    id: str | None
    output: str | None = None
    failed: bool = False
    images: list[dict[str, str]] = field(default_factory=list)


@dataclass
class SubAgent:
    """What a sub-agent said and did."""

    id: str
    parts: list["Part"] = field(default_factory=list)
    writing: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.id.partition(":")[0]


Part = str | ToolUse | TaskEvent | SubAgent


@dataclass
class Exchange:
    """A user's message and all that came back for it."""

    question: str
    parts: list[Part] = field(default_factory=list)
    writing: str = ""
    run_id: str | None = None
    trace_id: str | None = None
    trace_url: str | None = None
    kept: bool = True
    asked: list[Any] = field(default_factory=list)
    status: str | None = None
    error: str | None = None
    began: datetime | None = None
    figures: Figures = field(default_factory=Figures)
    votes: list[Vote] = field(default_factory=list)
    given: list[FileInfo] = field(default_factory=list)
    made: list[FileInfo] = field(default_factory=list)
    refused: bool = False

    @property
    def answer(self) -> str:
        """The last text so far."""
        return self.writing or next((part for part in reversed(self.parts) if isinstance(part, str)), "")


def from_events(question: str, events: Iterable[StreamEvent]) -> Exchange:
    """Return the exchange as far as these events tell it."""
    exchange = Exchange(question)
    for event in events:
        _follow(exchange, event)
    return exchange


def from_history(history: ChatHistory) -> list[Exchange]:
    """Return the thread's exchanges, oldest first."""
    exchanges: list[Exchange] = []
    for message in history.messages:
        if message.type == "human" or not exchanges:
            exchanges.append(Exchange(message.content if message.type == "human" else ""))
        _identify(exchanges[-1], message)
        _add(exchanges[-1].parts, message)
    _complete(exchanges, history)
    return exchanges


def with_latest(past: list[Exchange], latest: Exchange) -> list[Exchange]:
    """Return the exchanges with the latest as this process saw it, where the history has it too."""
    for place, one in enumerate(past):
        if one.run_id == latest.run_id is not None:
            return [*past[:place], joined(latest, one), *past[place + 1 :]]
    unanswered = past and past[-1].run_id is None and past[-1].question == latest.question
    return [*(past[:-1] if unanswered else past), latest]


def joined(seen: Exchange, told: Exchange) -> Exchange:
    """Return what this process saw of an exchange, with what only the service can tell of it."""
    return replace(
        seen,
        began=told.began,
        votes=told.votes,
        given=told.given or seen.given,
        made=told.made,
        figures=told.figures if seen.figures == Figures() else seen.figures,
        # Feedback brings a trace back that had been dropped.
        trace_url=seen.trace_url or (told.trace_url if told.votes else None),
    )


def _complete(exchanges: list[Exchange], history: ChatHistory) -> None:
    turns = {turn.run_id: turn for turn in history.turns}
    for exchange in exchanges:
        exchange.trace_url = history.trace_urls.get(exchange.trace_id or "")
        if turn := turns.get(exchange.run_id or ""):
            _tell(exchange, turn)
    if exchanges:
        exchanges[-1].asked = [each.value for each in history.waiting]
    for file in history.files:
        _place(file, exchanges)


def _tell(exchange: Exchange, turn: TurnInfo) -> None:
    exchange.trace_url, exchange.status, exchange.error = turn.trace_url, turn.status, turn.error
    exchange.began, exchange.figures, exchange.votes = turn.began, turn.figures, turn.votes
    exchange.asked = turn.asked


def _place(file: FileInfo, exchanges: Sequence[Exchange]) -> None:
    """Put the file where it came up: with the answer that it was made for, or the question that it was given with."""
    for one in exchanges:
        if one.began is None:
            continue
        if file.created <= one.began:
            one.given.append(file)
            return
        if file.created <= one.began + timedelta(milliseconds=one.figures.duration_ms or 0):
            one.made.append(file)
            return


def _follow(exchange: Exchange, event: StreamEvent) -> None:
    match event:
        case RunEvent():
            exchange.run_id, exchange.trace_id = event.run_id, event.trace_id
            exchange.trace_url = event.trace_url
        case TokenEvent():
            _speaker(exchange, event.agent).writing += event.content
        case MessageEvent():
            speaker = _speaker(exchange, event.agent)
            speaker.writing = ""
            _identify(exchange, event.content)
            _add(speaker.parts, event.content)
        case TaskEvent():
            _update(exchange.parts, event)
        case InterruptEvent():
            exchange.asked.append(event.value)
        case ErrorEvent():
            exchange.error = event.message
            exchange.trace_id = event.trace_id or exchange.trace_id
        case EndEvent():
            _end(exchange, event)


def _end(exchange: Exchange, end: EndEvent) -> None:
    exchange.status, exchange.kept = end.status, end.kept
    exchange.trace_url = (end.trace_url or exchange.trace_url) if end.kept else None
    exchange.figures = end.figures or exchange.figures


def _speaker(exchange: Exchange, agent: str | None) -> Exchange | SubAgent:
    if agent is None:
        return exchange
    known = (part for part in exchange.parts if isinstance(part, SubAgent) and part.id == agent)
    speaker = next(known, None)
    if speaker is None:
        speaker = SubAgent(agent)
        exchange.parts.append(speaker)
    return speaker


def _update(parts: list[Part], event: TaskEvent) -> None:
    for place, part in enumerate(parts):
        if isinstance(part, TaskEvent) and part.task_id == event.task_id:
            parts[place] = event
            return
    parts.append(event)


def _identify(exchange: Exchange, message: ChatMessage) -> None:
    exchange.run_id = message.run_id or exchange.run_id
    exchange.trace_id = message.trace_id or exchange.trace_id


def _add(parts: list[Part], message: ChatMessage) -> None:
    if message.type == "ai":
        parts += [message.content] if message.content else []
        parts += [ToolUse(call.name, call.args, call.id) for call in message.tool_calls]
    for part in parts:
        if message.type == "tool" and isinstance(part, ToolUse) and part.id == message.tool_call_id:
            part.output = message.content
            part.failed = message.custom_data.get("status") == "error"
            part.images = message.custom_data.get("images", [])
