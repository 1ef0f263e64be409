"""Convert LangChain's messages for clients, and keep the messages of a thread valid."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage

from app.schema import ChatMessage, ToolCall

M = TypeVar("M", bound=BaseMessage)

CANCELLED = "cancelled: the turn was stopped before this tool had answered"
NO_ANSWER = "(There is no answer: the turn was stopped, or it failed.)"
# The finish reason of a message that is hidden from clients.
UNANSWERED = "unanswered"
_CUT = "(The answer was cut off: it reached the model's length limit.)"
_FILTERED = "(The provider's content filter withheld the answer.)"
_REFUSED = "(The model refused to answer.)"
# What clients are told of an answer that ended early, by the finish reason of each provider.
_EARLY_ENDS = {
    "length": _CUT,
    "max_tokens": _CUT,
    "content_filter": _FILTERED,
    "safety": _FILTERED,
    "refusal": _REFUSED,
}


def to_chat_message(message: BaseMessage, run_id: str | None = None, trace_id: str | None = None) -> ChatMessage | None:
    """Return the message as clients see it; None if it is hidden from them, such as a system prompt."""
    if message.type.removesuffix("MessageChunk").lower() not in ("human", "ai", "tool"):
        return None
    if message.response_metadata.get("finish_reason") == UNANSWERED:
        return None
    custom_data = {}
    if isinstance(message, ToolMessage):
        custom_data["status"] = message.status
        if isinstance(message.artifact, dict) and message.artifact.get("images"):
            custom_data["images"] = message.artifact["images"]
    return ChatMessage(
        type=message.type,  # pyright: ignore[reportArgumentType] - one of the three, checked above
        content=answer_text(message) if isinstance(message, AIMessage) else message.text,
        reasoning=reasoning_text(message),
        tool_calls=[ToolCall(name=c["name"], args=c["args"], id=c["id"]) for c in tool_calls(message)],
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
        run_id=run_id,
        trace_id=trace_id,
        response_metadata=message.response_metadata,
        custom_data=custom_data,
    )


def from_chat_message(message: ChatMessage) -> AIMessage | ToolMessage:
    """Return the message of a model or a tool that clients were told of."""
    if message.type == "tool":
        status = "error" if message.custom_data.get("status") == "error" else "success"
        return ToolMessage(message.content, tool_call_id=message.tool_call_id or "", status=status)
    calls = [{"name": call.name, "args": call.args, "id": call.id} for call in message.tool_calls]
    return AIMessage(message.content, tool_calls=calls)


def without(messages: Iterable[ChatMessage], others: Iterable[ChatMessage]) -> list[ChatMessage]:
    """Return the messages that are not among the others; ids and traces do not count."""
    known = Counter(map(_content, others))
    found: list[ChatMessage] = []
    for message in messages:
        if known[_content(message)]:
            known[_content(message)] -= 1
        else:
            found.append(message)
    return found


def _content(message: ChatMessage) -> tuple[object, ...]:
    return message.type, message.content, message.tool_call_id, tuple(call.id for call in message.tool_calls)


def answer_text(message: AIMessage) -> str:
    """Return the text of an answer, with a sentence if it was refused, filtered or cut off."""
    metadata = message.response_metadata
    reason = str(metadata.get("finish_reason") or metadata.get("stop_reason") or "").lower()
    text = message.text or message.additional_kwargs.get("refusal") or ""
    return "\n\n".join(filter(None, (text, _EARLY_ENDS.get(reason))))


def reasoning_text(message: BaseMessage) -> str:
    """Return what a model said to itself before its answer, whichever way its provider tells it."""
    if isinstance(message.content, str) and not message.additional_kwargs.get("reasoning_content"):
        return ""
    return "".join(block.get("reasoning", "") for block in message.content_blocks if block["type"] == "reasoning")


def tool_calls(message: BaseMessage) -> list:
    """Return the tool calls of a message, without arguments if these were not a JSON object."""
    if not isinstance(message, AIMessage):
        return []
    invalid = [{"name": c["name"] or "unknown", "args": {}, "id": c["id"]} for c in message.invalid_tool_calls]
    return [*message.tool_calls, *invalid]


def answer_invalid_calls(message: AIMessage) -> list[ToolMessage]:
    """Return an error for each tool call whose arguments are not a JSON object, so that the model can correct it."""
    for call in message.invalid_tool_calls:
        call["id"] = call["id"] or f"call_{uuid4().hex}"
    return [
        ToolMessage(
            f"Error: the arguments are no JSON object, call the tool again: {call['args']}",
            tool_call_id=call["id"],
            name=call["name"] or "unknown",
            status="error",
        )
        for call in message.invalid_tool_calls
    ]


def with_valid_calls(message: M) -> M:
    """Return the message in a form that every provider accepts: invalid arguments of a call are removed."""
    if not isinstance(message, AIMessage) or not message.invalid_tool_calls:
        return message
    return message.model_copy(update={"tool_calls": tool_calls(message), "invalid_tool_calls": []})


def since_last_human(messages: Sequence[M]) -> list[M]:
    """Return the messages from the last human one on, or all of them if there is none."""
    last = max((index for index, message in enumerate(messages) if isinstance(message, HumanMessage)), default=0)
    return list(messages[last:])


def answer_open_calls(messages: Sequence[AnyMessage]) -> list[ToolMessage]:
    """Return a result for each open tool call of a stopped turn, because providers reject a thread without them."""
    # In order, because providers may restart the numbering in each turn, so that ids repeat.
    open_calls = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            open_calls.pop(message.tool_call_id, None)
        open_calls |= {call["id"]: call for call in tool_calls(message)}
    return [
        ToolMessage(CANCELLED, tool_call_id=call["id"], name=call["name"], status="error")
        for call in open_calls.values()
        if call["id"]
    ]


def complete_turn(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return the messages to add to a thread whose last turn was stopped; none if it ended by itself.

    With open tool calls, these include the turn's own messages: a thread shows the messages of an interrupted step, but
    has not stored them.
    """
    answers = answer_open_calls(messages)
    update: list[AnyMessage] = [*since_last_human(messages), *answers] if answers else []
    if messages and (answers or not isinstance(messages[-1], AIMessage)):
        update.append(no_answer())
    return update


def no_answer() -> AIMessage:
    """Return a message that takes the place of an answer and is hidden from clients.

    Many providers reject a thread in which a human message follows a human or a tool message.
    """
    return AIMessage(NO_ANSWER, response_metadata={"finish_reason": UNANSWERED})


def partial_answer(text: str, id: str | None = None) -> AIMessage:  # noqa: A002 - LangChain's name
    """Return the partial answer of a stopped turn as a message."""
    return AIMessage(text, id=id, response_metadata={"finish_reason": "stopped"})


def messages_in(update: object) -> Iterator[BaseMessage]:
    """Yield the messages that a node's update adds."""
    parts: Iterable[object] = update if isinstance(update, list | tuple) else [update]
    for part in parts:
        found = part.get("messages", []) if isinstance(part, dict) else []
        for message in found if isinstance(found, list) else [found]:
            if isinstance(message, BaseMessage):
                yield message
