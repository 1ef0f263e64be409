"""A FastAPI application, traced: its requests, and its end."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from telemetry.provider import instrument_app, shutdown
from telemetry.task import end_tasks
from telemetry.turn import drain

if TYPE_CHECKING:
    from fastapi import FastAPI


def instrument(
    app: "FastAPI", *, quiet: Iterable[str] = (), honours: Callable[[str | None], bool] | None = None
) -> None:
    """Trace the requests of this app, and send what is still held when it ends; call it before the app serves.

    Requests whose whole path matches one of the expressions in `quiet` make a trace only if they fail. `honours` says
    of an `Authorization` header whether its sender may continue a trace; everybody may without it.
    """
    app.router.lifespan_context = _ending(app.router.lifespan_context)
    instrument_app(app, quiet=quiet, honours=honours)


def _ending(lifespan: Callable[..., Any]) -> Callable[..., Any]:
    # A server that gets SIGTERM runs nothing later than this. Turns end while all that they need is still there.
    @asynccontextmanager
    async def lived(app: "FastAPI") -> AsyncIterator[Any]:
        try:
            async with lifespan(app) as state:
                yield state
                await drain()
        finally:
            end_tasks()
            shutdown()

    return lived
