"""What a run's tools have answered, kept before the run goes on: no call that was answered is made again."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, interrupt

Answer = ToolMessage | Command[Any]
Execute = Callable[[ToolCallRequest], Awaitable[Answer]]

CONSENT = "yes"


class Ledger(Protocol):
    """The answers of one thread's tools."""

    async def begin(self, call_id: str) -> tuple[bool, ToolMessage | None]:
        """Return whether the call was begun before, and its answer if there is one; note that it begins."""
        ...

    async def keep(self, call_id: str, answer: ToolMessage) -> None:
        """Keep the answer."""
        ...


ledger: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


def not_repeatable(tool: BaseTool) -> BaseTool:
    """Declare that the tool must not be called twice for one call; what is uncertain is asked of a person."""
    tool.metadata = {**(tool.metadata or {}), "repeatable": False}
    return tool


async def once(request: ToolCallRequest, execute: Execute) -> Answer:
    """Answer a call from the ledger where it has been answered, else by making it.

    Outside of a background run there is no ledger, and nothing is kept.
    """
    book, call = ledger.get(), request.tool_call
    if book is None or not call["id"]:
        return await execute(request)
    begun, answer = await book.begin(call["id"])
    if answer:
        return answer
    if begun and not _may_repeat(request):
        answer = ToolMessage("Not repeated: it may have been done.", tool_call_id=call["id"], status="error")
    else:
        made = await execute(request)
        if not isinstance(made, ToolMessage):
            return made
        answer = made
    answer.name = call["name"]
    await book.keep(call["id"], answer)
    return answer


def _may_repeat(request: ToolCallRequest) -> bool:
    tool = request.tool
    if tool is None or (tool.metadata or {}).get("repeatable", True):
        return True
    question = f"{request.tool_call['name']} was interrupted and may have been done. Shall I do it again?"
    return str(interrupt({"question": question, "options": [CONSENT, "no"]})).strip().lower() == CONSENT
