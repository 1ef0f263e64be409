"""Limits on what clients may hold open: connections that send nothing, or send slowly, and the log lines about them."""

import asyncio
import logging
import resource
import time
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

logger = logging.getLogger(__name__)

# A client has so many seconds for a request's line and headers, as many between two parts of its body, and for all of
# the body.
HEADERS_S = 15
BODY_PART_S = 30
BODY_S = 900
_REPEAT_S = 60


class ConnectionLimits:
    """What the connections of a server have in common.

    Half of the process's file descriptors are for its connections. One too many takes the place of the one that has
    waited longest for its client; where none waits, it is closed itself.
    """

    def __init__(self) -> None:
        self.most = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, 8)
        self.open = 0
        # Those whose client has to send something, the first of them longest.
        self.waiting: dict[LimitedProtocol, None] = {}

    def protocol(self, **arguments: Any) -> asyncio.Protocol:
        """Return the protocol of a new connection, as uvicorn asks for one."""
        return LimitedProtocol(limits=self, **arguments)


class LimitedProtocol(AutoHTTPProtocol):
    """One connection, which is closed when its client lets it wait.

    Uvicorn limits the time between two requests only, and no longer once a byte has come.
    """

    # What both of uvicorn's protocols have.
    transport: asyncio.Transport
    connections: set[Any]
    cycle: Any

    def __init__(self, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, if there is room."""
        super().connection_made(transport)
        self._limits.open += 1
        if self._limits.open > self._limits.most:
            logger.warning("there are too many connections: the one that waits longest is closed")
            longest = next(iter(self._limits.waiting), self)
            # It is told of its end later, and others may come before.
            longest.stop_waiting()
            longest.transport.abort()
        if not self.transport.is_closing():
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Read what the client sends."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another one."""
        self._limits.open -= 1
        self.stop_waiting()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Take note of whom this connection waits for: for its client, or for the application."""
        if self not in self.connections or not (self._expects_request() or self.cycle.more_body):
            # A web socket, or a request that is all there.
            return self.stop_waiting()
        now = time.monotonic()
        if self._timer is None:
            self._began = now
            self._limits.waiting[self] = None
        else:
            self._timer.cancel()
        if self._expects_request():
            wait = self._began + HEADERS_S - now
        else:
            wait = min(BODY_PART_S, self._began + BODY_S - now)
        self._timer = asyncio.get_running_loop().call_later(max(wait, 0), self._give_up)
        return None

    def _expects_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _give_up(self) -> None:
        if not self.transport.is_reading():
            # The application has yet to read what the client sent.
            self._watch()
            return
        logger.warning("a connection whose client sends nothing is closed")
        self.transport.abort()

    def stop_waiting(self) -> None:
        """Wait for the client no longer: all is there, or the connection ends."""
        self._limits.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RepeatFilter(logging.Filter):
    """Lets a message of these beginnings pass once a minute; what anybody can cause must not fill a disk."""

    def __init__(self, *beginnings: str) -> None:
        super().__init__()
        self._beginnings = beginnings
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log this record."""
        message = str(record.msg)
        beginning = next(filter(message.startswith, self._beginnings), None)
        if beginning is None:
            return True
        now = time.monotonic()
        if now < self._passed.get(beginning, -_REPEAT_S) + _REPEAT_S:
            return False
        self._passed[beginning] = now
        return True


# What strangers can have logged, by the name of the logger.
_REPEATED = {
    __name__: ("there are too many connections", "a connection whose client"),
    "uvicorn.error": ("Invalid HTTP request", "Unsupported upgrade", "No supported WebSocket"),
    "asyncio": ("socket.accept() out of system resource",),
}


def limit_log_lines() -> None:
    """Log what strangers can cause once a minute at most."""
    for name, beginnings in _REPEATED.items():
        target = logging.getLogger(name)
        if not any(isinstance(each, RepeatFilter) for each in target.filters):
            target.addFilter(RepeatFilter(*beginnings))
