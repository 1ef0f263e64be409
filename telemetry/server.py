"""A web server of our own programs: what keeps one of them from starting is told in one sentence."""

import socket
from contextlib import AsyncExitStack, suppress

import uvicorn
from fastapi import FastAPI

from telemetry.settings import SettingsError


class Server(uvicorn.Server):
    """A server that raises what prevents its start, where uvicorn logs a traceback and ends the process.

    `prefix` is that of the variables that say where to listen: HOST and PORT, or VIEWER_HOST and VIEWER_PORT.
    """

    def __init__(self, app: FastAPI, host: str, port: int, *, prefix: str = "") -> None:
        # What the lifespan raises would stay within uvicorn's own: it is entered here.
        super().__init__(uvicorn.Config(app, host, port, lifespan="off", log_config=None, log_level="warning"))
        self._life = AsyncExitStack()
        self._lifespan = app.router.lifespan_context(app)
        self._where = f"{prefix}HOST and {prefix}PORT"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal says to stop."""
        with suppress(KeyboardInterrupt):
            super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen once the app has started; raises `SettingsError` where that address cannot be had."""
        bound = self._bind()
        await self._life.enter_async_context(self._lifespan)
        await super().startup([bound, *(sockets or [])])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the connections, then the app."""
        await super().shutdown(sockets)
        await self._life.aclose()

    def _bind(self) -> socket.socket:
        host, port = self.config.host, self.config.port
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            bound.close()
            raise SettingsError(
                f"{host}:{port} cannot be listened on ({error.strerror}): "
                f"set {self._where} to an address of this machine and a port that is free."
            ) from error
        return bound
