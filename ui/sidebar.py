"""The sidebar: who answers, the conversations, the background runs, the files, and who is there."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError
from app.schema import AgentInfo, FileInfo, RunInfo, ServiceInfo, ThreadInfo
from ui.chat import go_to
from ui.files import draw_download
from ui.identity import Visitor
from ui.plain import plain
from ui.turns import turns

# Threads that are listed, and how many more are at a click.
LISTED = 20
MOST_LISTED = 200
RUNS = 5
LOOK_EVERY_S = 2
ICONS = {
    "queued": ":material/schedule:",
    "running": ":material/progress_activity:",
    "lost": ":material/progress_activity:",
    "waiting": ":material/help:",
    "completed": ":material/check_circle:",
    "failed": ":material/error:",
    "cancelled": ":material/cancel:",
}
GOING = ("queued", "running", "lost")
STYLE = Path(__file__).with_name("page.css")


def choose(info: ServiceInfo) -> tuple[AgentInfo, str, bool]:
    """Draw the choice of the agent, of the model, and of whether anybody waits."""
    agents = {agent.key: agent for agent in info.agents}
    st.html(STYLE)
    st.title("Agent chat", anchor=False)
    st.button("New chat", icon=":material/edit_square:", on_click=go_to, width="stretch")
    key = st.selectbox("Agent", agents, list(agents).index(info.default_agent), key="agent", bind="query-params")
    if agents[key].error:
        st.warning(f"This agent could not be loaded: {plain(agents[key].error or '')}")
    at = info.models.index(info.default_model)
    model = st.selectbox("Model", info.models, at, key="model", bind="query-params")
    in_background = st.toggle(
        "Answer in the background",
        key="background",
        help="The answer goes on without this page.",
        bind="query-params",
    )
    return agents[key], model, in_background


def draw_threads(client: AgentClient, open_thread: str) -> None:
    """Draw the visitor's conversations, the latest first; a click opens one, another one deletes it."""
    listed = st.session_state.setdefault("listed", LISTED)
    with telemetry.untraced():
        threads = client.get_threads(limit=listed).threads
    if not threads:
        return
    st.subheader("Chats", anchor=False)
    with st.container(gap=None, key="chats"):
        for thread in threads:
            draw_thread(client, thread, is_open=thread.thread_id == open_thread)
    if len(threads) == listed < MOST_LISTED:
        st.button("Older ones", icon=":material/expand_more:", type="tertiary", on_click=list_more)


def draw_thread(client: AgentClient, thread: ThreadInfo, *, is_open: bool) -> None:
    """Draw one conversation of the list."""
    with st.container(horizontal=True, wrap=False, gap="xsmall", vertical_alignment="center"):
        st.button(
            plain(thread.title),
            key=f"open-{thread.thread_id}",
            type="secondary" if is_open else "tertiary",
            width="stretch",
            wrap=False,
            on_click=go_to,
            args=(thread.thread_id, thread.agent),
        )
        st.button(
            "",
            key=f"delete-{thread.thread_id}",
            help="Delete",
            icon=":material/delete:",
            type="tertiary",
            on_click=ask_about,
            args=(thread.thread_id,),
        )
        if st.session_state.get("asked_about") == thread.thread_id:
            confirm(client, thread, is_open=is_open)


def list_more() -> None:
    """List older conversations, too."""
    st.session_state.listed = min(MOST_LISTED, st.session_state.listed + LISTED)


def ask_about(thread_id: str | None = None) -> None:
    """Have it asked whether this thread is to be deleted, by every drawing of the page until somebody has answered."""
    st.session_state.asked_about, st.session_state.not_deleted = thread_id, None


@st.dialog("Delete this chat?", icon=":material/delete:", on_dismiss=ask_about)
def confirm(client: AgentClient, thread: ThreadInfo, *, is_open: bool) -> None:
    """Ask, and delete: nothing is left of the conversation then."""
    st.text(thread.title)
    st.caption("Its messages and files go; traces and scores stay where they are.")
    st.button(
        "Delete",
        type="primary",
        icon=":material/delete:",
        on_click=remove,
        args=(client, thread.thread_id),
        kwargs={"is_open": is_open},
    )
    if st.session_state.not_deleted:
        st.error(plain(st.session_state.not_deleted), icon=":material/error:")


def remove(client: AgentClient, thread_id: str, *, is_open: bool) -> None:
    """Delete the thread, and draw the page without it."""
    try:
        client.delete_thread(thread_id)
    except AgentError as error:
        st.session_state.not_deleted = str(error)
        return
    turns().forget(client.user_id, thread_id)
    ask_about()
    if is_open:
        go_to()
    st.rerun()


def draw_runs(client: AgentClient, runs: Sequence[RunInfo]) -> None:
    """Draw the latest background runs; while one is going they are looked at again and again."""
    if runs:
        st.subheader("Background runs", anchor=False)
        every = LOOK_EVERY_S if any(run.status in GOING for run in runs[:RUNS]) else None
        with st.container(gap=None, key="runs"):
            st.fragment(_list_runs, run_every=every)(client, list(runs[:RUNS]))


def _list_runs(client: AgentClient, runs: Sequence[RunInfo]) -> None:
    for run in _latest(client, runs):
        st.button(
            plain(run.message or run.run_id),
            key=f"run-{run.run_id}",
            help=run.status,
            icon=ICONS[run.status],
            type="tertiary",
            width="stretch",
            wrap=False,
            on_click=go_to,
            args=(run.thread_id, run.agent),
        )


def _latest(client: AgentClient, runs: Sequence[RunInfo]) -> Sequence[RunInfo]:
    """Return how the runs stand now, or stood when the service could last be asked."""
    if not any(run.status in GOING for run in runs):
        return runs
    try:
        with telemetry.untraced():
            return client.get_runs(RUNS).runs
    except AgentError:
        return runs


def draw_list_of(client: AgentClient, files: Sequence[FileInfo]) -> None:
    """Draw the thread's files, to be downloaded."""
    if files:
        st.subheader("Files", anchor=False)
        for file in files:
            draw_download(client, file, "list")


def draw_visitor(visitor: Visitor) -> None:
    """Draw who is there, where somebody has said so."""
    with st.container(key="visitor"):
        if visitor.name:
            st.text(visitor.name)
        if visitor.may_log_out:
            st.button("Log out", icon=":material/logout:", type="tertiary", on_click=st.logout)
