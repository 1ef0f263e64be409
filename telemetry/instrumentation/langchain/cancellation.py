"""The callback that a turn passes to its agent, so that no step starts once the turn is cancelled."""

import asyncio
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

from telemetry.instrumentation.langchain.langchain_internals import InlineHandler
from telemetry.turn import Turn


class CancellationCallback(InlineHandler, BaseCallbackHandler):
    """Cancels a run that would start a step of a cancelled turn.

    A tool may suppress its cancellation, and a thread cannot be cancelled: both end at their next step. This also
    works with tracing off and in turns that are not sampled.
    """

    def __init__(self, turn: Turn[Any]) -> None:
        self._turn = turn

    def on_chain_start(self, *_: Any, **__: Any) -> None:
        """Let the step start, or cancel it."""
        # A CancelledError, because LangChain would log any other error of a handler and continue.
        if self._turn.stopping:
            raise asyncio.CancelledError("the turn was cancelled")

    on_tool_start = on_retriever_start = on_chain_start

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        """Let the model call start, or cancel its caller."""
        # LangChain has created a coroutine for each handler: if this one raised, they would never be awaited.
        if self._turn.stopping and (task := _current_task()):
            task.cancel()
        elif self._turn.stopping:
            raise asyncio.CancelledError("the turn was cancelled")

    on_llm_start = on_chat_model_start


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
