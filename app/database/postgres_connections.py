"""Connections to a Postgres server that may stop answering."""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

from psycopg import AsyncConnection, InterfaceError, OperationalError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

T = TypeVar("T")

# The driver warns of each connection that is lost; that the database is away is one line in our log.
logging.getLogger("psycopg").setLevel(logging.ERROR)

# How long to wait for a connection or the answer to a ping, so that callers get an error within two seconds.
PATIENCE_S = 1.0
# The same at the start, when nobody calls: a process that gets little CPU takes long to connect.
START_PATIENCE_S = 10.0
# The server ends longer statements. Options in the address take precedence.
_STATEMENT_TIMEOUT = "-cstatement_timeout=30000"
# After how many executions the driver prepares a statement: its default.
_PREPARE_THRESHOLD = 5
_OUTAGES = (OperationalError, InterfaceError, IdleInTransactionSessionTimeout, ReadOnlySqlTransaction)


class Connections:
    """The open connections to one server.

    A server that hangs, or that the network does not reach any more, leaves its callers waiting: psycopg waits as well
    for the end of a statement that is cancelled. So their sockets are shut down, which each of them sees at once.

    A `pooled` connection has no options and no prepared statements: it leads to a pooler without sessions.
    """

    def __init__(self, url: str, *, pooled: bool = False) -> None:
        options = f"{_STATEMENT_TIMEOUT} {conninfo_to_dict(url).get('options') or ''}".strip()
        self._conninfo = url if pooled else make_conninfo(url, options=options)
        self._prepare_threshold = None if pooled else _PREPARE_THRESHOLD
        self.patience_s = START_PATIENCE_S
        self._open: WeakSet[AsyncConnection[Any]] = WeakSet()
        self._closing: set[asyncio.Future[None]] = set()

    async def connect(self) -> AsyncConnection[Any]:
        """Return a new connection; raise `OperationalError` if the server does not answer in time."""
        connecting = asyncio.ensure_future(
            AsyncConnection.connect(self._conninfo, prepare_threshold=self._prepare_threshold)
        )
        try:
            if not await self._ended(connecting):
                raise OperationalError("the server does not answer")  # noqa: TRY301 - the connection is closed below
            connection = connecting.result()
        except BaseException:
            # It may be open by now.
            connecting.add_done_callback(self._close_unused)
            connecting.cancel()
            raise
        self._open.add(connection)
        return connection

    def _close_unused(self, connecting: "asyncio.Future[AsyncConnection[Any]]") -> None:
        if not connecting.cancelled() and not connecting.exception():
            closing = asyncio.ensure_future(connecting.result().close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def answered(self, request: Awaitable[T]) -> T:
        """Return the server's answer; raise `OperationalError` where there is none in time: then shut down."""
        asked = asyncio.ensure_future(request)
        if await self._ended(asked):
            return asked.result()
        # It ends with its connection, and nobody asks for its error.
        asked.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise OperationalError("the server does not answer")

    async def ping(self) -> None:
        """Return if a new connection is answered in time, else raise."""
        connection = await self.connect()
        try:
            await self.answered(connection.execute("select 1"))
        finally:
            await connection.close()

    async def _ended(self, future: "asyncio.Future[Any]") -> bool:
        # In short waits: where this process gets no CPU, the time that passes says nothing about the server.
        for _ in range(10):
            if (await asyncio.wait({future}, timeout=self.patience_s / 10))[0]:
                return True
        return False

    def shut_down(self) -> None:
        """End every connection, together with what waits for an answer of the server."""
        for connection in list(self._open):
            # It may be closed already.
            with suppress(OperationalError, OSError), socket.socket(fileno=os.dup(connection.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)


def is_outage(error: BaseException) -> bool:
    """Return whether the database cannot be used, rather than that a statement is wrong."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error.orig, _OUTAGES)
    return isinstance(error, (*_OUTAGES, PoolTimeoutError))
