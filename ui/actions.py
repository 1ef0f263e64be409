"""What people do on the page, told to the service once each: the script that draws it never waits for it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError

logger = logging.getLogger(__name__)

# Of what waits to be told while the service is away, the rest is dropped.
MOST_WAITING = 100


class Actions:
    """Tells of actions, a few at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="actions")
        self._places = BoundedSemaphore(MOST_WAITING)

    def tell(self, client: AgentClient, name: str, thread_id: str, **about: bool | float | str) -> None:
        """Have the action recorded in the thread's session, soon."""
        if self._places.acquire(blocking=False):
            self._pool.submit(self._tell, client, name, thread_id, about)

    def _tell(self, client: AgentClient, name: str, thread_id: str, about: dict[str, bool | float | str]) -> None:
        try:
            with telemetry.scope(session_id=thread_id, user_id=client.user_id):
                client.event(name, thread_id, **about)
        except AgentError as error:
            logger.info("%s was not recorded: %s", name, error)
        finally:
            self._places.release()


@st.cache_resource(show_spinner=False)
def actions() -> Actions:
    """Return what tells of this process's actions."""
    return Actions()
