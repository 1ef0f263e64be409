"""Which answers their readers have not seen: those that ended while another chat was open."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import streamlit as st

from app.schema import ThreadInfo


@dataclass
class UnseenThreads:
    """The threads of each user that were seen running, and those whose answer was not seen; lost with the process."""

    _running: defaultdict[str | None, set[str]] = field(default_factory=lambda: defaultdict(set))
    _unseen: defaultdict[str | None, set[str]] = field(default_factory=lambda: defaultdict(set))

    def update(self, user_id: str | None, threads: Sequence[ThreadInfo], open_thread: str) -> Collection[str]:
        """Return the unseen threads, as of this list and with this thread open."""
        running, unseen = self._running[user_id], self._unseen[user_id]
        now = {thread.thread_id for thread in threads if thread.status == "running"}
        unseen |= running & {thread.thread_id for thread in threads} - now
        running -= unseen
        running |= now
        unseen.discard(open_thread)
        return frozenset(unseen)


@st.cache_resource(show_spinner=False)
def unseen_threads() -> UnseenThreads:
    """Return the unseen threads of this process, the same for every page."""
    return UnseenThreads()
