"""One question and its answer, read from a stream's events or from a thread's history."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from app.schema import (
    ChatHistory,
    ChatMessage,
    EndEvent,
    ErrorEvent,
    InterruptEvent,
    MessageEvent,
    RunEvent,
    StreamEvent,
    TokenEvent,
)


@dataclass
class ToolUse:
    """A tool that the agent called; no output yet while it works."""

    name: str
    input: dict[str, Any]
    id: str | None
    output: str | None = None
    failed: bool = False


@dataclass
class Exchange:
    """A user's message and all that came back for it."""

    question: str
    parts: list[str | ToolUse] = field(default_factory=list)
    writing: str = ""
    run_id: str | None = None
    trace_id: str | None = None
    trace_url: str | None = None
    kept: bool = True
    asked: Any = None
    status: str | None = None
    error: str | None = None

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
        _add(exchanges[-1], message)
    for exchange in exchanges:
        exchange.trace_url = history.trace_urls.get(exchange.trace_id or "")
    return exchanges


def with_latest(past: list[Exchange], latest: Exchange) -> list[Exchange]:
    """Return the exchanges with the latest as this process saw it, where the history has it too."""
    for place, one in enumerate(past):
        if one.run_id == latest.run_id is not None:
            return [*past[:place], latest, *past[place + 1 :]]
    unanswered = past and past[-1].run_id is None and past[-1].question == latest.question
    return [*(past[:-1] if unanswered else past), latest]


def _follow(exchange: Exchange, event: StreamEvent) -> None:
    match event:
        case RunEvent():
            exchange.run_id, exchange.trace_id = event.run_id, event.trace_id
            exchange.trace_url = event.trace_url
        case TokenEvent():
            exchange.writing += event.content
        case MessageEvent():
            exchange.writing = ""
            _add(exchange, event.content)
        case InterruptEvent():
            exchange.asked = event.value
        case ErrorEvent():
            exchange.error = event.message
            exchange.trace_id = event.trace_id or exchange.trace_id
        case EndEvent():
            exchange.status, exchange.kept = event.status, event.kept
            exchange.trace_url = (event.trace_url or exchange.trace_url) if event.kept else None


def _add(exchange: Exchange, message: ChatMessage) -> None:
    exchange.run_id = message.run_id or exchange.run_id
    exchange.trace_id = message.trace_id or exchange.trace_id
    if message.type == "ai":
        exchange.parts += [message.content] if message.content else []
        exchange.parts += [ToolUse(call.name, call.args, call.id) for call in message.tool_calls]
    for part in exchange.parts:
        if message.type == "tool" and isinstance(part, ToolUse) and part.id == message.tool_call_id:
            part.output = message.content
            part.failed = message.custom_data.get("status") == "error"
