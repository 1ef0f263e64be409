"""The scope of a request that concerns a thread but is not a turn."""

from collections.abc import Iterator
from contextlib import contextmanager

import telemetry
from telemetry.otel.propagator import caller_shows_texts


@contextmanager
def thread_scope(
    thread_id: str | None, user: str, *, name: str | None = None, run_id: str | None = None
) -> Iterator[None]:
    """Set user and thread on the spans inside: the thread as filterable metadata, not as the session.

    A session consists of the turns of a conversation, and backends list each of its traces as a turn. A request that a
    chat makes within a turn, such as an upload, is part of the turn's trace and therefore of its session.
    """
    is_of_turn = caller_shows_texts(telemetry.get_span())
    with telemetry.scope(
        session_id=thread_id if is_of_turn else None,
        user_id=user or None,
        name=name,
        run_id=run_id,
        metadata={"thread": thread_id} if thread_id else None,
    ):
        yield
