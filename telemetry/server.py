"""The web server of our programs: it reports in one sentence why it cannot start."""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from telemetry.configure import flush
from telemetry.connections import ConnectionLimits, limit_log_lines
from telemetry.settings import SettingsError

logger = logging.getLogger(__name__)

# How long the process may take to end after a signal. Kubernetes and our compose file kill it after 30 seconds.
SHUTDOWN_S = 20.0
# How long it then waits for the backend; what is not sent stays on disk.
_FLUSH_S = 1.0


class Server(uvicorn.Server):
    """A server that raises an error if it cannot start, where uvicorn logs a traceback and ends the process.

    `prefix` is the prefix of the variables of its address: HOST and PORT, or VIEWER_HOST and VIEWER_PORT.
    """

    def __init__(self, app: FastAPI, host: str, port: int, *, prefix: str = "") -> None:
        # Uvicorn would not pass on an exception of the lifespan: it is entered here instead.
        config = uvicorn.Config(app, host, port, lifespan="off", log_config=None, log_level="warning")
        config.http = cast(type[asyncio.Protocol], ConnectionLimits().protocol)  # it is called, and nothing else
        super().__init__(config)
        self._life = AsyncExitStack()
        self._lifespan = app.router.lifespan_context(app)
        self._where = f"{prefix}HOST and {prefix}PORT"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal stops it."""
        limit_log_lines()
        with suppress(KeyboardInterrupt):
            super().run(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGHUP as well: a terminal sends it that is closed."""
        with super().capture_signals():
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, for `SHUTDOWN_S` seconds at most; the second signal ends the process at once."""
        if self.should_exit:
            os._exit(128 + sig)
        # A thread: the loop, or the end of the interpreter, may be what hangs.
        threading.Thread(target=self._end_in_time, args=(sig,), name="shutdown", daemon=True).start()
        super().handle_exit(sig, frame)

    def _end_in_time(self, sig: int) -> None:
        time.sleep(SHUTDOWN_S)
        logger.warning("the process exits, although something has not stopped within %g s", SHUTDOWN_S)
        flushing = threading.Thread(target=flush, args=(_FLUSH_S,), daemon=True)
        flushing.start()
        flushing.join(_FLUSH_S)
        os._exit(128 + sig)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen once the app has started; raise `SettingsError` if the address is not available."""
        bound = self._bind()
        await self._life.enter_async_context(self._lifespan)
        await super().startup([bound, *(sockets or [])])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the connections, then stop the app."""
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
