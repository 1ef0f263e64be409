"""Poolers in transaction mode, such as PgBouncer's and Supabase's: each transaction may run in another session."""

from typing import Any

from psycopg import AsyncConnection, OperationalError

from app.database.postgres_connections import Connections
from telemetry.settings import SettingsError, unusable

_NO_SESSIONS = "leads to a connection pooler, which keeps no sessions for locks"
_DIRECT = "the address of the server itself, or of a pooler in session mode that takes options"
# How PgBouncer refuses the options of a session.
_REFUSAL = "unsupported startup parameter"
# Instead of options of the session.
TRANSACTION_TIMEOUTS = "set local idle_in_transaction_session_timeout = 5000; set local statement_timeout = 30000"
_ATTEMPTS = 5


async def check_sessions(connections: Connections, *, has_pooler: bool) -> None:
    """Raise `SettingsError` unless each of these connections has a session of its own, which locks need.

    They lead to `DATABASE_DIRECT_URL` if `has_pooler`, else to `DATABASE_URL`.
    """
    setting = "DATABASE_DIRECT_URL" if has_pooler else "DATABASE_URL"
    try:
        if await keeps_sessions(connections):
            return
    except OperationalError as error:
        if _REFUSAL not in str(error):
            raise unusable(setting, error, "start the server, or correct its address, name or password") from error
    advice = f"name {_DIRECT}" if has_pooler else f"set DATABASE_DIRECT_URL to {_DIRECT}"
    raise SettingsError(f"{setting} {_NO_SESSIONS}: {advice}.")


async def keeps_sessions(connections: Connections) -> bool:
    """Return whether each connection has a session of its own, rather than one that others use between transactions."""
    async with await connections.connect() as first, await connections.connect() as second:
        await first.set_autocommit(True)
        await second.set_autocommit(True)
        # A pooler gives the session that was used last to the next transaction, unless another client is faster.
        for _ in range(_ATTEMPTS):
            released = await _session(first)
            async with second.transaction():
                if await _session(second) == released:
                    return False
        return True


async def _session(connection: AsyncConnection[Any]) -> int:
    row = await (await connection.execute("select pg_backend_pid()")).fetchone()
    assert row  # noqa: S101 - it is a value
    return row[0]
