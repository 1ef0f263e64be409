"""Report actions on the page to the service, once each and without delaying the script that draws it."""

import logging
import threading
from collections.abc import Callable
from queue import Full, Queue

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError

logger = logging.getLogger(__name__)

# Further events are dropped while the service is unavailable.
MAX_QUEUED = 100


class FrontendEvents:
    """Sends events one after the other, from a separate thread."""

    def __init__(self) -> None:
        self._queue: Queue[Callable[[], None]] = Queue(MAX_QUEUED)
        threading.Thread(target=self._send_all, name="frontend-events", daemon=True).start()

    def send(self, client: AgentClient, name: str, thread_id: str, **metadata: bool | float | str) -> None:
        """Queue an event about this thread."""
        try:
            self._queue.put_nowait(lambda: _send(client, name, thread_id, metadata))
        except Full:
            logger.info("%s was not recorded: the service is slow", name)

    def _send_all(self) -> None:
        while True:
            self._queue.get()()


def _send(client: AgentClient, name: str, thread_id: str, metadata: dict[str, bool | float | str]) -> None:
    try:
        with telemetry.scope(user_id=client.user_id, metadata={"thread": thread_id}):
            client.event(name, thread_id, **metadata)
    except AgentError as error:
        logger.info("%s was not recorded: %s", name, error)
    except Exception:
        logger.exception("%s was not recorded", name)


@st.cache_resource(show_spinner=False)
def frontend_events() -> FrontendEvents:
    """Return the sender of this process."""
    return FrontendEvents()
