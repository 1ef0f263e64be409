"""The callback that a turn gives to its agent: no step starts once the turn is being stopped."""

import asyncio
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

from telemetry.turn import Turn


class Gate(BaseCallbackHandler):
    """Cancels whatever would begin a step of a turn that was cancelled.

    A tool may swallow its cancellation, and a thread cannot be cancelled at all: both end at their next step. It
    works with tracing off and in turns that are not sampled, too.
    """

    run_inline = True

    def __init__(self, turn: Turn[Any]) -> None:
        self._turn = turn

    def on_chain_start(self, *_: Any, **__: Any) -> None:
        """Let the step begin, or cancel it."""
        # Not an error of this handler, which LangChain would log and pass over.
        if self._turn.stopping:
            raise asyncio.CancelledError("the turn was cancelled")

    on_tool_start = on_retriever_start = on_chain_start

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        """Let the model be asked, or cancel who would ask it."""
        # LangChain has a coroutine in waiting for each handler: they would be left there if this one raised.
        if self._turn.stopping and (asking := _current_task()):
            asking.cancel()
        elif self._turn.stopping:
            raise asyncio.CancelledError("the turn was cancelled")

    on_llm_start = on_chat_model_start


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
