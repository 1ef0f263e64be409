"""LangChain's messages, as the contract shows them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, ToolMessage

from app.schema import ChatMessage, TaskEvent, ToolCall

CANCELLED = "cancelled: the turn was stopped before this tool had answered"


def to_chat(message: BaseMessage, run_id: str | None = None, trace_id: str | None = None) -> ChatMessage | None:
    """Return the message as clients see it; None for one that is not theirs, such as a system prompt."""
    if message.type.removesuffix("MessageChunk").lower() not in ("human", "ai", "tool"):
        return None
    return ChatMessage(
        type=message.type,  # pyright: ignore[reportArgumentType] - one of the three, asked above
        content=message.text,
        tool_calls=[ToolCall(name=c["name"], args=c["args"], id=c["id"]) for c in tool_calls(message)],
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
        run_id=run_id,
        trace_id=trace_id,
        response_metadata=message.response_metadata,
        custom_data=_about(message) if isinstance(message, ToolMessage) else {},
    )


def _about(message: ToolMessage) -> dict[str, Any]:
    images = message.artifact.get("images") if isinstance(message.artifact, dict) else None
    return {"status": message.status, **({"images": images} if images else {})}


def tool_calls(message: BaseMessage) -> list:
    """Return the tool calls of a message, none where it cannot have any."""
    return message.tool_calls if isinstance(message, AIMessage) else []


def answers_to_open_calls(messages: Sequence[AnyMessage]) -> list[ToolMessage]:
    """Return an answer to each tool call that a stopped turn left open; providers refuse a thread without."""
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    return [
        ToolMessage(CANCELLED, tool_call_id=call["id"], name=call["name"], status="error")
        for message in messages
        for call in tool_calls(message)
        if call["id"] not in answered
    ]


def last_turn(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return the messages from the person's last one on."""
    spoke = max((at for at, message in enumerate(messages) if message.type == "human"), default=0)
    return list(messages[spoke:])


def closed(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return what to write to a thread whose last turn left tool calls open; nothing where none is.

    The turn's own messages are among it: a thread shows those of a step that was cut off, but has not kept them.
    """
    answers = answers_to_open_calls(messages)
    return [*last_turn(messages), *answers] if answers else []


def stopped(text: str) -> AIMessage:
    """Return what was said until a turn was stopped, as the message it would have become."""
    return AIMessage(text, response_metadata={"finish_reason": "stopped"})


def in_custom(chunk: object) -> Iterator[TaskEvent]:
    """Yield the task's event that an agent has written to its stream, where it is one."""
    if isinstance(chunk, dict) and chunk.get("type") == "task":
        yield TaskEvent.model_validate(chunk)


def in_update(update: object) -> Iterator[BaseMessage]:
    """Yield the messages that a node's update adds."""
    parts: Iterable[object] = update if isinstance(update, list | tuple) else [update]
    for part in parts:
        found = part.get("messages", []) if isinstance(part, dict) else []
        for message in found if isinstance(found, list) else [found]:
            if isinstance(message, BaseMessage):
                yield message
