"""Send what is left when uvicorn stops a server: after SIGTERM the process then ends without Python's own exit.

An application that `telemetry.instrument` got sends its spans when its lifespan ends. This is for all others, such as
the graphs that `langgraph dev` serves.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from anyio import CancelScope, to_thread

from telemetry.internal_errors import handle_internal_errors

_METHOD = "shutdown"


def instrument(flush: Callable[[], object]) -> None:
    """Call `flush` in a thread after each shutdown of a server, if uvicorn is imported."""
    if (uvicorn := sys.modules.get("uvicorn")) and not _original(uvicorn.Server):
        setattr(uvicorn.Server, _METHOD, _followed_by(flush, getattr(uvicorn.Server, _METHOD)))


def uninstrument() -> None:
    """Undo `instrument`."""
    if (uvicorn := sys.modules.get("uvicorn")) and (original := _original(uvicorn.Server)):
        setattr(uvicorn.Server, _METHOD, original)


def _original(server: Any) -> Any:
    return getattr(getattr(server, _METHOD), "__wrapped__", None)


def _followed_by(flush: Callable[[], object], stop: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(stop)
    async def stop_and_flush(*args: Any, **kwargs: Any) -> Any:
        try:
            return await stop(*args, **kwargs)
        finally:
            with handle_internal_errors("send the spans of a stopped server"), CancelScope(shield=True):
                await to_thread.run_sync(flush)

    return stop_and_flush
