"""What people do on the page, told to the service once each: the script that draws it never waits for it."""

import logging
import threading
from collections.abc import Callable
from queue import Full, Queue

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError

logger = logging.getLogger(__name__)

# Of what waits to be told while the service is away, the rest is dropped.
MOST_WAITING = 100


class Actions:
    """Tells of actions, one after the other."""

    def __init__(self) -> None:
        self._waiting: Queue[Callable[[], None]] = Queue(MOST_WAITING)
        threading.Thread(target=self._tell_all, name="actions", daemon=True).start()

    def tell(self, client: AgentClient, name: str, thread_id: str, **about: bool | float | str) -> None:
        """Have the action recorded in the thread's session, soon."""
        try:
            self._waiting.put_nowait(lambda: _tell(client, name, thread_id, about))
        except Full:
            logger.info("%s was not recorded: the service is slow", name)

    def _tell_all(self) -> None:
        while True:
            self._waiting.get()()


def _tell(client: AgentClient, name: str, thread_id: str, about: dict[str, bool | float | str]) -> None:
    try:
        with telemetry.scope(session_id=thread_id, user_id=client.user_id):
            client.event(name, thread_id, **about)
    except AgentError as error:
        logger.info("%s was not recorded: %s", name, error)
    except Exception:
        logger.exception("%s was not recorded", name)


@st.cache_resource(show_spinner=False)
def actions() -> Actions:
    """Return what tells of this process's actions."""
    return Actions()
