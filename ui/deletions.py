"""Chats that were deleted on the page: the service deletes each only when the time to undo it is over."""

import logging
import threading
from dataclasses import dataclass, field

import streamlit as st

from app.client import AgentClient, AgentError
from ui.turn_registry import turn_registry

logger = logging.getLogger(__name__)

UNDO_SECONDS = 10

Key = tuple[str | None, str]


@dataclass(eq=False)
class Deletion:
    """One deletion; `was_open` if the page that asked for it showed this chat."""

    client: AgentClient
    thread_id: str
    was_open: bool
    timer: threading.Timer
    begun: bool = False


@dataclass
class Deletions:
    """The deletions that can be undone, for every page of this process: they do not depend on the page that asked."""

    undo_s: float = UNDO_SECONDS
    _waiting: dict[Key, Deletion] = field(default_factory=dict)
    _errors: dict[str | None, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, client: AgentClient, thread_id: str, *, was_open: bool) -> None:
        """Delete this thread once the time is over; a second click changes nothing."""
        key = client.user_id, thread_id
        timer = threading.Timer(self.undo_s, self._delete, [key])
        timer.daemon = True
        with self._lock:
            if key not in self._waiting:
                self._waiting[key] = Deletion(client, thread_id, was_open, timer)
                timer.start()

    def undo(self, user_id: str | None, thread_id: str) -> Deletion | None:
        """Keep this thread, and return the deletion; None if there is none, or if it is too late."""
        with self._lock:
            deletion = self._waiting.get((user_id, thread_id))
            if deletion is None or deletion.begun:
                return None
            deletion.timer.cancel()
            return self._waiting.pop((user_id, thread_id))

    def threads(self, user_id: str | None) -> frozenset[str]:
        """Return the threads of this user that are being deleted."""
        with self._lock:
            return frozenset(thread_id for user, thread_id in self._waiting if user == user_id)

    def take_error(self, user_id: str | None) -> str | None:
        """Return why the latest deletion failed, once."""
        return self._errors.pop(user_id, None)

    def stop(self) -> None:
        """Delete what waits at once, since the process ends."""
        with self._lock:
            keys = list(self._waiting)
        for key in keys:
            self._delete(key)

    def _delete(self, key: Key) -> None:
        with self._lock:
            deletion = self._waiting.get(key)
            if deletion is None or deletion.begun:
                return
            deletion.begun = True
            deletion.timer.cancel()
        try:
            deletion.client.delete_thread(deletion.thread_id)
            turn_registry().forget(*key)
        except AgentError as error:
            logger.warning("thread %s was not deleted: %s", deletion.thread_id, error)
            self._errors[key[0]] = str(error)
        finally:
            with self._lock:
                del self._waiting[key]


@st.cache_resource(show_spinner=False)
def deletions() -> Deletions:
    """Return the deletions of this process, the same for every page."""
    return Deletions()
