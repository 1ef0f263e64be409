"""Draw the sidebar: chats, background runs, and who is logged in."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from zoneinfo import ZoneInfo, available_timezones

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError
from app.schema import RunInfo, ThreadInfo
from ui import texts
from ui.browser import FOCUS_UNDO, run_script
from ui.chat import go_to, new_thread
from ui.components.copy_button import draw_copy_button
from ui.deletions import deletions
from ui.export import as_json, as_markdown
from ui.identity import Visitor
from ui.markdown import escape
from ui.turn_registry import turn_registry
from ui.unseen import unseen_threads

# How many threads a click adds to the list.
THREADS_PER_PAGE = 20
MAX_RUNS = 5
REFRESH_SECONDS = 2
ICONS = {
    "queued": ":material/schedule:",
    "running": ":material/progress_activity:",
    "lost": ":material/progress_activity:",
    "waiting": ":material/help:",
    "completed": ":material/check_circle:",
    "failed": ":material/error:",
    "cancelled": ":material/cancel:",
}
UNFINISHED = ("queued", "running", "lost")
THREAD_STATES = {
    "running": (":material/progress_activity:", texts.CHAT_RUNNING),
    "waiting": (":material/help:", texts.CHAT_WAITING),
}
UNSEEN = ":material/mark_chat_unread:", texts.CHAT_UNSEEN


def draw_top() -> bool:
    """Draw the page's title and the way to a new chat; return whether messages are answered in the background."""
    st.title(texts.PAGE_TITLE, anchor=False)
    st.button(texts.NEW_CHAT, icon=":material/edit_square:", on_click=go_to, width="stretch", shortcut="mod+shift+o")
    return st.toggle(texts.IN_BACKGROUND, key="background", help=texts.IN_BACKGROUND_HELP, bind="query-params")


def wanted_threads() -> tuple[int, str]:
    """Return how many threads are listed, and the words that are searched in them."""
    state = st.session_state
    return state.setdefault("thread_limit", THREADS_PER_PAGE), state.get("thread_search", "").strip()


def draw_threads(client: AgentClient, threads: Sequence[ThreadInfo], open_thread: str) -> None:
    """Draw the visitor's chats, the latest first, each with a button that opens and one that deletes it."""
    if error := deletions().take_error(client.user_id):
        st.toast(escape(error), icon=":material/error:")
    limit, searched = wanted_threads()
    if not threads and not searched:
        return
    st.header(texts.CHATS, anchor=False)
    st.text_input(
        texts.SEARCH_CHATS,
        key="thread_search",
        placeholder=texts.SEARCH_PLACEHOLDER,
        icon=":material/search:",
        label_visibility="collapsed",
        max_chars=200,
    )
    if not threads:
        st.caption(texts.NOTHING_FOUND)
    unseen = unseen_threads().update(client.user_id, threads, open_thread)
    deleted = deletions().threads(client.user_id)
    with st.container(gap=None, key="chats"):
        for day, group in groupby(threads, key=lambda thread: day_of(thread.updated, st.context.timezone)):
            st.caption(day)
            for thread in group:
                if thread.thread_id in deleted:
                    draw_deleted(client, thread)
                    continue
                draw_thread(client, thread, is_open=thread.thread_id == open_thread, unseen=thread.thread_id in unseen)
    if len(threads) == limit:
        st.button(texts.OLDER_CHATS, icon=":material/expand_more:", type="tertiary", on_click=list_more_threads)
    if deleted:
        watch_deletions(client.user_id, deleted)


def day_of(moment: datetime, timezone: str | None) -> str:
    """Return Today, Yesterday or Earlier, by the calendar of this time zone."""
    zone = ZoneInfo(timezone) if timezone in available_timezones() else UTC
    days = (datetime.now(zone).date() - moment.astimezone(zone).date()).days
    return texts.TODAY if days <= 0 else texts.YESTERDAY if days == 1 else texts.EARLIER


def draw_thread(client: AgentClient, thread: ThreadInfo, *, is_open: bool, unseen: bool) -> None:
    """Draw one chat of the list."""
    with st.container(horizontal=True, wrap=False, gap="xsmall", vertical_alignment="center"):
        icon, state = state_of(client, thread, is_open=is_open, unseen=unseen)
        st.button(
            escape(thread.title),
            key=f"open-{thread.thread_id}",
            help=state,
            icon=icon,
            type="secondary" if is_open else "tertiary",
            width="stretch",
            wrap=False,
            on_click=go_to,
            args=(thread.thread_id, thread.agent),
        )
        if is_open:
            draw_more(client, thread)
        st.button(
            texts.delete_chat(escape(thread.title)),
            key=f"delete-{thread.thread_id}",
            help=texts.DELETE,
            icon=":material/delete:",
            type="tertiary",
            on_click=delete,
            args=(client, thread.thread_id),
            kwargs={"is_open": is_open},
        )


def state_of(
    client: AgentClient, thread: ThreadInfo, *, is_open: bool, unseen: bool
) -> tuple[str, str] | tuple[None, None]:
    """Return the mark of a chat and what it means; none for one that is over and seen."""
    turn = turn_registry().latest(client.user_id, thread.thread_id) if is_open else None
    # The list may be older than the end of the answer that this page has just seen.
    is_over = thread.status == "running" and turn is not None and turn.done
    return THREAD_STATES.get("" if is_over else thread.status or "", UNSEEN if unseen else (None, None))


def draw_more(client: AgentClient, thread: ThreadInfo) -> None:
    """Draw what can be done with the open thread: rename it, copy its link, export it."""
    name = re.sub(r"[^\w-]+", "-", thread.title)[:40].strip("-") or texts.EXPORT_FILE_NAME
    with st.popover(texts.MORE_ABOUT_CHAT, icon=":material/more_horiz:", type="tertiary", key="more"):
        field = f"title-{thread.thread_id}"
        st.text_input(
            texts.CHAT_TITLE,
            thread.title,
            key=field,
            max_chars=200,
            on_change=rename,
            args=(client, thread.thread_id, field),
        )
        draw_copy_button(f"{st.context.url}?thread_id={thread.thread_id}", key="copy-link", label=texts.COPY_LINK)
        # The messages are fetched on a click.
        st.download_button(
            texts.EXPORT_MARKDOWN,
            lambda: as_markdown(thread.title, client.get_history(thread.thread_id)),
            f"{name}.md",
            "text/markdown",
            key="export-markdown",
            icon=":material/download:",
            type="tertiary",
            on_click="ignore",
        )
        st.download_button(
            texts.EXPORT_JSON,
            lambda: as_json(client.get_history(thread.thread_id)),
            f"{name}.json",
            "application/json",
            key="export-json",
            icon=":material/download:",
            type="tertiary",
            on_click="ignore",
        )


def rename(client: AgentClient, thread_id: str, field: str) -> None:
    """Store the title that was entered; without one, the old title stays."""
    title = st.session_state[field].strip()
    try:
        if title:
            client.rename_thread(thread_id, title)
    except AgentError as error:
        st.toast(escape(str(error)), icon=":material/error:")


def list_more_threads() -> None:
    """Add older chats to the list."""
    st.session_state.thread_limit += THREADS_PER_PAGE


def delete(client: AgentClient, thread_id: str, *, is_open: bool) -> None:
    """Delete the thread after a while, in which its place in the list offers to undo that."""
    deletions().add(client, thread_id, was_open=is_open)
    if is_open:
        # The sidebar stays open, with the button that undoes it.
        st.session_state.thread_id = new_thread()
    run_script(FOCUS_UNDO)


def draw_deleted(client: AgentClient, thread: ThreadInfo) -> None:
    """Draw a thread that is being deleted, with the way back."""
    with st.container(horizontal=True, wrap=False, gap="xsmall", vertical_alignment="center"):
        st.caption(texts.deleted(escape(thread.title)), help=texts.DELETION_CONSEQUENCES)
        st.button(
            texts.UNDO,
            key=f"undo-{thread.thread_id}",
            icon=":material/undo:",
            type="tertiary",
            on_click=undo_deletion,
            args=(client, thread),
        )


def undo_deletion(client: AgentClient, thread: ThreadInfo) -> None:
    """Keep the thread, and open it again if it was open; say so if it is too late."""
    deletion = deletions().undo(client.user_id, thread.thread_id)
    if deletion is None:
        st.toast(texts.TOO_LATE_TO_UNDO)
    elif deletion.was_open:
        go_to(thread.thread_id, thread.agent)


@st.fragment(run_every=REFRESH_SECONDS)
def watch_deletions(user_id: str | None, drawn: frozenset[str]) -> None:
    """Redraw the page when the deletions are others than the drawn ones."""
    if deletions().threads(user_id) != drawn:
        st.rerun()


def draw_runs(client: AgentClient, runs: Sequence[RunInfo]) -> None:
    """Draw the latest background runs, refreshed while one is unfinished."""
    if runs:
        st.header(texts.BACKGROUND_RUNS, anchor=False)
        every = REFRESH_SECONDS if any(run.status in UNFINISHED for run in runs[:MAX_RUNS]) else None
        with st.container(gap=None, key="runs"):
            st.fragment(_draw_runs, run_every=every)(client, list(runs[:MAX_RUNS]))


def _draw_runs(client: AgentClient, runs: Sequence[RunInfo]) -> None:
    for run in _refresh(client, runs):
        st.button(
            escape(run.message or run.run_id),
            key=f"run-{run.run_id}",
            help=texts.RUN_STATUSES[run.status],
            icon=ICONS[run.status],
            type="tertiary",
            width="stretch",
            wrap=False,
            on_click=go_to,
            args=(run.thread_id, run.agent),
        )


def _refresh(client: AgentClient, runs: Sequence[RunInfo]) -> Sequence[RunInfo]:
    """Return the current runs, or the last known ones if the service does not answer."""
    if not any(run.status in UNFINISHED for run in runs):
        return runs
    try:
        with telemetry.suppress_instrumentation():
            return client.get_runs(MAX_RUNS).runs
    except AgentError:
        return runs


def draw_visitor(visitor: Visitor) -> None:
    """Draw the name of the user, if it is known."""
    with st.container(key="visitor"):
        if visitor.name:
            st.text(visitor.name)
        if visitor.may_log_out:
            st.button(texts.LOG_OUT, icon=":material/logout:", type="tertiary", on_click=st.logout)
