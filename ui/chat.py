"""What a page is open on, and what can be done there."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import BinaryIO
from uuid import uuid4

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

import telemetry
from app.client import AgentClient, AgentError, Refused
from app.schema import ChatHistory, RunInfo, ThreadState
from ui.actions import actions
from ui.background import OVER, BackgroundRun
from ui.browser import FOLD_THE_SIDEBAR, ask
from ui.turns import Turn, turns


@dataclass(frozen=True)
class Chat:
    """A thread, who answers there, and how: at once or in the background."""

    client: AgentClient
    thread_id: str
    model: str
    backend: str | None = None
    in_background: bool = False

    @property
    def link(self) -> str:
        """What a link to a trace is called."""
        return f"View in {self.backend}" if self.backend else "View trace"

    @property
    def turn(self) -> Turn | None:
        """The turn that the thread had last in this process."""
        return turns().latest(self.client.user_id, self.thread_id)

    @property
    def as_chosen(self) -> "Chat":
        """The chat with the choices as they stand now: a message may be sent before the page is drawn with them."""
        chosen, client = st.session_state, copy(self.client)
        client.agent = chosen.agent
        return replace(
            self, client=client, thread_id=chosen.thread_id, model=chosen.model, in_background=chosen.background
        )

    def send(self, message: str, files: Sequence[BinaryIO] = ()) -> None:
        """Begin a turn, unless one is under way."""
        kind = BackgroundRun if self.in_background else Turn
        if not turns().begin(kind(self.client, self.thread_id, message, self.model, files)):
            st.toast("This chat is still being answered elsewhere: wait for it, or stop it.")
        elif files:
            self.tell("file_upload", files=len(files))

    def send_again(self, message: str) -> None:
        """Begin a turn in this thread with the choices as they stand now."""
        replace(self.as_chosen, thread_id=self.thread_id).send(message)

    def stop(self, turn: Turn) -> None:
        """Ask the turn to stop."""
        turn.stop()
        self.tell("stop", run=turn.exchange().run_id or "")

    def attach(self, run: RunInfo) -> Turn | None:
        """Return the turn that follows a run which is under way, also one that another process began."""
        known = self.turn
        # The list of runs may be older than the turn's end.
        ended = known and known.exchange().run_id == run.run_id and known.exchange().status in OVER
        if known is None or (known.done and not ended):
            turns().begin(BackgroundRun(self.client, self.thread_id, run.message, run=run))
        return self.turn

    def has_moved(self, told: ChatHistory) -> bool:
        """Whether the thread has gone on since this was told, elsewhere; each time is noticed once."""
        before = ThreadState(thread_id=self.thread_id)
        if told.turns:
            before.run_id, before.status = told.turns[-1].run_id, told.turns[-1].status
        now = self._state() or before
        if now in (before, st.session_state.get("noticed")):
            return False
        st.session_state.noticed = now
        return True

    def _state(self) -> ThreadState | None:
        """Return where the thread stands, None where that cannot be said."""
        try:
            with telemetry.untraced():
                return self.client.get_thread(self.thread_id)
        except Refused as error:
            return ThreadState(thread_id=self.thread_id) if error.status == 404 else None
        except AgentError:
            return None

    def tell(self, name: str, **about: bool | float | str) -> None:
        """Have an action recorded."""
        actions().tell(self.client, name, self.thread_id, **about)


def open_thread() -> str:
    """Return the thread of this page; it stands in the address, so that a reload finds it again."""
    state, asked = st.session_state, st.query_params.get("thread_id")
    if asked and ("thread_id" not in state or _went_through_history()):
        state.thread_id = asked
    st.query_params["thread_id"] = thread_id = state.setdefault("thread_id", str(uuid4()))
    return thread_id


def _went_through_history() -> bool:
    """Whether somebody has gone back or forth: else the browser has only not shown yet where the page has gone."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def go_to(thread_id: str | None = None, agent: str | None = None) -> None:
    """Make the page open this thread next, or one of its own."""
    st.session_state.thread_id = thread_id or str(uuid4())
    if agent:
        st.session_state.agent = agent
    ask(FOLD_THE_SIDEBAR)
