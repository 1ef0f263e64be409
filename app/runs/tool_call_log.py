"""Log the tool calls of a background run with their results, so that no finished call is repeated."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, interrupt

ToolResult = ToolMessage | Command[Any]
Execute = Callable[[ToolCallRequest], Awaitable[ToolResult]]

CONSENT = "yes"


class ToolCallLog(Protocol):
    """The tool calls of one thread, under ids that are unique in it."""

    async def begin_tool_call(self, call_id: str) -> tuple[bool, ToolMessage | None]:
        """Return whether the call had started before, and its result if there is one; log that it starts."""
        ...

    async def save_answer(self, call_id: str, answer: ToolMessage) -> None:
        """Log the result."""
        ...


tool_call_log: ContextVar[ToolCallLog | None] = ContextVar("tool_call_log", default=None)


def not_repeatable(tool: BaseTool) -> BaseTool:
    """Return the tool, marked as not repeatable: if a call may have been executed, the run asks a person."""
    tool.metadata = {**(tool.metadata or {}), "repeatable": False}
    return tool


async def idempotent(request: ToolCallRequest, execute: Execute) -> ToolResult:
    """Return the logged result of a finished call; otherwise execute the call and log its result.

    Outside a background run there is no log.
    """
    log, call = tool_call_log.get(), request.tool_call
    if log is None or not call["id"]:
        return await execute(request)
    # Providers may restart the numbering in each turn: the id of the message makes a call unique.
    messages = request.state["messages"] if isinstance(request.state, dict) else getattr(request.state, "messages", [])
    message_id = next((message.id for message in reversed(messages) if isinstance(message, AIMessage)), None)
    call_id = f"{message_id}/{call['id']}"
    begun, answer = await log.begin_tool_call(call_id)
    if answer:
        return answer
    if begun and not _may_repeat(request):
        answer = ToolMessage(
            "Not repeated: it may already have been executed.", tool_call_id=call["id"], status="error"
        )
    else:
        result = await execute(request)
        if not isinstance(result, ToolMessage):
            return result
        answer = result
    answer.name = call["name"]
    await log.save_answer(call_id, answer)
    return answer


def _may_repeat(request: ToolCallRequest) -> bool:
    tool = request.tool
    if tool is None or (tool.metadata or {}).get("repeatable", True):
        return True
    question = f"{request.tool_call['name']} was interrupted and may have been done. Shall I do it again?"
    return str(interrupt({"question": question, "options": [CONSENT, "no"]})).strip().lower() == CONSENT
