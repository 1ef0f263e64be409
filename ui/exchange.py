"""One question and its answer, read from a stream's events or from a thread's history."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
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
    ReasoningEvent,
    RunEvent,
    StreamEvent,
    TaskEvent,
    TokenEvent,
    TurnInfo,
    Vote,
)

# The reasons of providers for an answer that reached the model's length limit.
CUT = ("length", "max_tokens", "MAX_TOKENS")


@dataclass
class ToolUse:
    """A tool call of the agent; `output` is None while the tool runs."""

    name: str
    input: dict[str, Any]
    id: str | None
    output: str | None = None
    failed: bool = False
    images: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Reasoning:
    """What a model said to itself before its answer."""

    text: str


@dataclass
class SubAgent:
    """The text and tool calls of a sub-agent."""

    id: str
    parts: list["Part"] = field(default_factory=list)
    partial: str = ""
    partial_id: str | None = None
    reasoning: str = ""

    @property
    def name(self) -> str:
        """Its name, without the id of this run of it."""
        return self.id.partition(":")[0]


Part = str | Reasoning | ToolUse | TaskEvent | SubAgent


@dataclass
class Exchange:
    """A user's message and everything that came back for it."""

    question: str
    parts: list[Part] = field(default_factory=list)
    partial: str = ""
    partial_id: str | None = None
    reasoning: str = ""
    run_id: str | None = None
    trace_id: str | None = None
    trace_url: str | None = None
    kept: bool = True
    questions: list[Any] = field(default_factory=list)
    open_questions: list[InterruptEvent] = field(default_factory=list)
    status: str | None = None
    error: str | None = None
    began: datetime | None = None
    figures: Figures = field(default_factory=Figures)
    votes: list[Vote] = field(default_factory=list)
    uploads: list[FileInfo] = field(default_factory=list)
    outputs: list[FileInfo] = field(default_factory=list)
    refused: bool = False
    resumed: bool = False
    replaces: str | None = None
    versions: list[str] = field(default_factory=list)
    was_cut: bool = False

    @property
    def can_be_replaced(self) -> bool:
        """Whether its question can be asked again, or edited: the answer to a question of the agent cannot."""
        return bool(self.run_id and self.question and not self.resumed)

    @property
    def answer(self) -> str:
        """The latest text."""
        return self.partial or next((part for part in reversed(self.parts) if isinstance(part, str)), "")


def from_events(question: str, events: Iterable[StreamEvent]) -> Exchange:
    """Return the exchange that these events describe."""
    exchange = Exchange(question)
    for event in events:
        _apply_event(exchange, event)
    return exchange


def from_history(history: ChatHistory) -> list[Exchange]:
    """Return the thread's exchanges, oldest first."""
    exchanges: list[Exchange] = []
    for message in history.messages:
        if message.type == "human" or not exchanges:
            exchanges.append(Exchange(message.content if message.type == "human" else ""))
        _set_ids(exchanges[-1], message)
        _note_end(exchanges[-1], message)
        _add(exchanges[-1].parts, message)
    _apply_history(exchanges, history)
    return exchanges


def with_latest(past: list[Exchange], latest: Exchange) -> list[Exchange]:
    """Return the exchanges; the latest is as this process saw it, if the history contains it too."""
    for index, known in enumerate(past):
        if known.run_id == latest.run_id is not None:
            return [*past[:index], merge(latest, known), *past[index + 1 :]]
    for index, known in enumerate(past):
        if latest.run_id in known.versions:
            return past  # another version was chosen
        if known.run_id == latest.replaces is not None:
            return [*past[:index], latest]
    unanswered = past and past[-1].run_id is None and past[-1].question == latest.question
    return [*(past[:-1] if unanswered else past), latest]


def merge(seen: Exchange, known: Exchange) -> Exchange:
    """Return the exchange as this process saw it, completed with what only the service knows."""
    return replace(
        seen,
        began=known.began,
        votes=known.votes,
        uploads=known.uploads or seen.uploads,
        outputs=known.outputs,
        versions=known.versions,
        resumed=known.resumed,
        figures=known.figures if seen.figures == Figures() else seen.figures,
        # Feedback restores a trace that was dropped.
        trace_url=seen.trace_url or (known.trace_url if known.votes else None),
    )


def _apply_history(exchanges: list[Exchange], history: ChatHistory) -> None:
    turns = {turn.run_id: turn for turn in history.turns}
    for exchange in exchanges:
        exchange.trace_url = history.trace_urls.get(exchange.trace_id or "")
        if turn := turns.get(exchange.run_id or ""):
            _apply_turn(exchange, turn)
    if exchanges:
        exchanges[-1].questions = [each.value for each in history.waiting]
        exchanges[-1].open_questions = history.waiting
    for file in history.files:
        _assign_file(file, exchanges)


def _apply_turn(exchange: Exchange, turn: TurnInfo) -> None:
    exchange.trace_url, exchange.status, exchange.error = turn.trace_url, turn.status, turn.error
    exchange.began, exchange.figures, exchange.votes = turn.began, turn.figures, turn.votes
    exchange.questions = turn.asked
    exchange.resumed, exchange.versions = turn.resumed, turn.versions


def _assign_file(file: FileInfo, exchanges: Sequence[Exchange]) -> None:
    """Add the file to the answer that produced it, or to the question that it was uploaded with."""
    for exchange in exchanges:
        if exchange.run_id == file.run_id is not None and exchange.began:
            (exchange.uploads if file.created <= exchange.began else exchange.outputs).append(file)
            return


def _apply_event(exchange: Exchange, event: StreamEvent) -> None:
    match event:
        case RunEvent():
            exchange.run_id, exchange.trace_id = event.run_id, event.trace_id
            exchange.trace_url = event.trace_url
        case TokenEvent():
            author = _author(exchange, event.agent)
            if event.message_id != author.partial_id:
                # What another model of the agent has said before was no part of the answer.
                author.partial, author.partial_id = "", event.message_id
            author.partial += event.content
        case ReasoningEvent():
            _author(exchange, event.agent).reasoning += event.content
        case MessageEvent():
            _apply_message(exchange, event)
        case TaskEvent():
            _update_task(exchange.parts, event)
        case InterruptEvent():
            exchange.questions.append(event.value)
            exchange.open_questions.append(event)
        case ErrorEvent():
            exchange.error = event.message
            exchange.trace_id = event.trace_id or exchange.trace_id
        case EndEvent():
            _apply_end(exchange, event)


def _apply_message(exchange: Exchange, event: MessageEvent) -> None:
    author = _author(exchange, event.agent)
    author.partial, author.partial_id, author.reasoning = "", None, ""
    _set_ids(exchange, event.content)
    if author is exchange:
        _note_end(exchange, event.content)
    _add(author.parts, event.content)


def _apply_end(exchange: Exchange, end: EndEvent) -> None:
    exchange.status, exchange.kept = end.status, end.kept
    exchange.trace_url = (end.trace_url or exchange.trace_url) if end.kept else None
    exchange.figures = end.figures or exchange.figures


def _author(exchange: Exchange, agent: str | None) -> Exchange | SubAgent:
    if agent is None:
        return exchange
    known = (part for part in exchange.parts if isinstance(part, SubAgent) and part.id == agent)
    author = next(known, None)
    if author is None:
        author = SubAgent(agent)
        exchange.parts.append(author)
    return author


def _update_task(parts: list[Part], event: TaskEvent) -> None:
    for index, part in enumerate(parts):
        if isinstance(part, TaskEvent) and part.task_id == event.task_id:
            parts[index] = event
            return
    parts.append(event)


def _set_ids(exchange: Exchange, message: ChatMessage) -> None:
    exchange.run_id = message.run_id or exchange.run_id
    exchange.trace_id = message.trace_id or exchange.trace_id


def _note_end(exchange: Exchange, message: ChatMessage) -> None:
    """Set whether the answer reached the model's length limit."""
    if message.type == "ai":
        metadata = message.response_metadata
        exchange.was_cut = (metadata.get("finish_reason") or metadata.get("stop_reason")) in CUT


def _add(parts: list[Part], message: ChatMessage) -> None:
    if message.type == "ai":
        parts += [Reasoning(message.reasoning)] if message.reasoning else []
        parts += [message.content] if message.content else []
        parts += [ToolUse(call.name, call.args, call.id) for call in message.tool_calls]
    for part in parts:
        if message.type == "tool" and isinstance(part, ToolUse) and part.id == message.tool_call_id:
            part.output = message.content
            part.failed = message.custom_data.get("status") == "error"
            part.images = message.custom_data.get("images", [])
