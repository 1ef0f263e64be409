"""The state of a page, and the actions on it."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import BinaryIO
from uuid import uuid4

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError, Refused, Unreachable
from app.schema import Answer, ChatHistory, RunInfo, ThreadInfo, ThreadState, words_of
from ui import texts
from ui.background import FINISHED, BackgroundTurn
from ui.browser import COLLAPSE_SIDEBAR, run_script
from ui.deletions import deletions
from ui.frontend_events import frontend_events
from ui.markdown import escape
from ui.streamlit_patches import is_history_navigation
from ui.turn_registry import ChatTurn, turn_registry


@dataclass(frozen=True)
class Chat:
    """A thread with its agent and model, and whether they run in the background."""

    client: AgentClient
    thread_id: str
    model: str
    backend: str | None = None
    in_background: bool = False

    @property
    def link(self) -> str:
        """The label of a link to a trace."""
        return texts.view_in(self.backend) if self.backend else texts.VIEW_TRACE

    @property
    def turn(self) -> ChatTurn | None:
        """The latest turn of the thread in this process."""
        return turn_registry().latest(self.client.user_id, self.thread_id)

    @property
    def with_current_choices(self) -> "Chat":
        """The chat with the choices as they stand now: a message may be sent before the page is drawn with them."""
        state, client = st.session_state, copy(self.client)
        client.agent = state.agent
        return replace(
            self,
            client=client,
            thread_id=state.thread_id,
            # There is no choice of a single model.
            model=state.get("model", self.model),
            in_background=state.background,
        )

    def send(
        self,
        message: str,
        files: Sequence[BinaryIO] = (),
        answers: Mapping[str, Answer] | None = None,
        replaces: str | None = None,
    ) -> None:
        """Start a turn, unless one is running; with `replaces`, in place of that run.

        A thread that is about to be deleted is kept.
        """
        deletions().undo(self.client.user_id, self.thread_id)
        kind = BackgroundTurn if self.in_background else ChatTurn
        turn = kind(self.client, self.thread_id, message, self.model, files, answers, replaces)
        if not turn_registry().start(turn):
            st.toast(texts.STILL_ANSWERED_ELSEWHERE)
            return
        st.session_state.messages_sent = st.session_state.get("messages_sent", 0) + 1
        if files:
            self.record_event("file_upload", files=len(files))

    def answer(self, answers: Mapping[str, Answer]) -> None:
        """Start a turn in this thread with the answers to its agent's questions."""
        words = "\n".join(map(words_of, answers.values()))
        replace(self.with_current_choices, thread_id=self.thread_id).send(words, answers=answers)

    def send_from_click(self, message: str, replaces: str | None = None) -> None:
        """Start a turn in this thread with the choices as they stand now, for a button that was drawn before them."""
        replace(self.with_current_choices, thread_id=self.thread_id).send(message, replaces=replaces)

    def show_version(self, run_id: str) -> None:
        """Show the conversation with this run, another version of one that is shown."""
        try:
            self.client.show_version(self.thread_id, run_id)
        except AgentError as error:
            st.toast(escape(str(error)), icon=":material/error:")
            return
        # The latest turn may be part of the version that was shown.
        turn_registry().forget(self.client.user_id, self.thread_id)

    def stop(self, turn: ChatTurn) -> None:
        """Ask the turn to stop."""
        turn.stop()
        self.record_event("stop", run=turn.exchange().run_id or "")

    def attach(self, run: RunInfo) -> ChatTurn | None:
        """Return the turn that follows an unfinished run, which another process may have started."""
        turn = self.turn
        # The list of runs may be older than the turn's end.
        ended = turn and turn.exchange().run_id == run.run_id and turn.exchange().status in FINISHED
        if turn is None or (turn.done and not ended):
            turn_registry().start(BackgroundTurn(self.client, self.thread_id, run.message, run=run))
        return self.turn

    def has_changed(self, history: ChatHistory) -> bool:
        """Return whether the thread has gone on elsewhere since this history; each change is reported once.

        An outage of the service counts as a change, so that the page shows it.
        """
        before = ThreadState(thread_id=self.thread_id)
        if history.turns:
            before.run_id, before.status = history.turns[-1].run_id, history.turns[-1].status
        try:
            now = self._state() or before
        except Unreachable:
            return True
        if now in (before, st.session_state.get("reported_state")):
            return False
        st.session_state.reported_state = now
        return True

    def is_service_reachable(self) -> bool:
        """Return whether the service answers."""
        try:
            self._state()
        except Unreachable:
            return False
        return True

    def has_ended(self, threads: Sequence[ThreadInfo]) -> bool:
        """Return whether one of these threads, which were being answered, no longer is."""
        if not threads:
            return False
        try:
            with telemetry.suppress_instrumentation():
                now = {each.thread_id: each.status for each in self.client.get_threads().threads}
        except AgentError:
            return False
        return any(now.get(each.thread_id) != each.status for each in threads)

    def _state(self) -> ThreadState | None:
        """Return the state of the thread, None if it is unknown; raise `Unreachable` during an outage."""
        try:
            with telemetry.suppress_instrumentation():
                return self.client.get_thread(self.thread_id)
        except Refused as error:
            return ThreadState(thread_id=self.thread_id) if error.status == 404 else None
        except Unreachable:
            raise
        except AgentError:
            return None

    def record_event(self, name: str, **metadata: bool | float | str) -> None:
        """Let the service record an action on the page."""
        frontend_events().send(self.client, name, self.thread_id, **metadata)


def new_thread() -> str:
    """Return the id of a new thread."""
    return str(uuid4())


def open_thread() -> str:
    """Return the thread of this page; it is part of the address, so that a reload finds it again."""
    state, requested = st.session_state, st.query_params.get("thread_id")
    # Otherwise the browser may not show yet where a click has led.
    if requested and ("thread_id" not in state or is_history_navigation()):
        state.thread_id = requested
    st.query_params["thread_id"] = thread_id = state.setdefault("thread_id", new_thread())
    return thread_id


def go_to(thread_id: str | None = None, agent: str | None = None) -> None:
    """Make the page open this thread next, or a new one."""
    st.session_state.thread_id = thread_id or new_thread()
    if agent:
        st.session_state.agent = agent
    run_script(COLLAPSE_SIDEBAR)
