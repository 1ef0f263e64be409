"""Draw the sidebar: agent and model, chats, background runs, and who is logged in."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from zoneinfo import ZoneInfo, available_timezones

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError
from app.schema import AgentInfo, RunInfo, ServiceInfo, ThreadInfo
from ui import texts
from ui.chat import go_to
from ui.components.copy_button import draw_copy_button
from ui.components.welcome import title_of
from ui.export import as_json, as_markdown
from ui.identity import Visitor
from ui.markdown import escape
from ui.streamlit_patches import is_history_navigation
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


def draw_choices(info: ServiceInfo) -> tuple[AgentInfo, str, bool]:
    """Draw the choice of agent, model and background, and return what is chosen."""
    agents = {agent.key: agent for agent in info.agents}
    st.title(texts.PAGE_TITLE, anchor=False)
    st.button(texts.NEW_CHAT, icon=":material/edit_square:", on_click=go_to, width="stretch")
    key = draw_agent_choice(agents, info.default_agent)
    if agents[key].error:
        st.warning(texts.agent_not_loaded(escape(agents[key].error or "")))
    index = info.models.index(info.default_model)
    model = st.selectbox(texts.MODEL, info.models, index, key="model", bind="query-params")
    in_background = st.toggle(
        texts.IN_BACKGROUND,
        key="background",
        help=texts.IN_BACKGROUND_HELP,
        bind="query-params",
    )
    return agents[key], model, in_background


def draw_agent_choice(agents: Mapping[str, AgentInfo], default: str) -> str:
    """Draw the choice of the agent by its title, and return its key, which is part of the address unless default.

    Streamlit's own binding would put the title into the address.
    """
    requested = st.query_params.get("agent")
    if requested in agents and ("agent" not in st.session_state or is_history_navigation()):
        st.session_state.agent = requested
    key = st.selectbox(
        texts.AGENT,
        agents,
        list(agents).index(default),
        key="agent",
        format_func=lambda key: title_of(agents[key]),
        filter_mode=None,
    )
    if key != default:
        st.query_params["agent"] = key
    elif requested:
        del st.query_params["agent"]
    return key


def wanted_threads() -> tuple[int, str]:
    """Return how many threads are listed, and the words that are searched in them."""
    state = st.session_state
    return state.setdefault("thread_limit", THREADS_PER_PAGE), state.get("thread_search", "").strip()


def draw_threads(client: AgentClient, threads: Sequence[ThreadInfo], open_thread: str) -> None:
    """Draw the visitor's chats, the latest first, each with a button that opens and one that deletes it."""
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
    with st.container(gap=None, key="chats"):
        for day, group in groupby(threads, key=lambda thread: day_of(thread.updated, st.context.timezone)):
            st.caption(day)
            for thread in group:
                draw_thread(client, thread, is_open=thread.thread_id == open_thread, unseen=thread.thread_id in unseen)
    if len(threads) == limit:
        st.button(texts.OLDER_CHATS, icon=":material/expand_more:", type="tertiary", on_click=list_more_threads)


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
            on_click=ask_to_delete,
            args=(thread.thread_id,),
        )
        if st.session_state.get("thread_to_delete") == thread.thread_id:
            confirm_deletion(client, thread, is_open=is_open)


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


def ask_to_delete(thread_id: str | None = None) -> None:
    """Show the question whether to delete this thread in every drawing of the page, until it is answered."""
    st.session_state.thread_to_delete, st.session_state.deletion_error = thread_id, None


@st.dialog(texts.DELETE_CHAT_TITLE, icon=":material/delete:", on_dismiss=ask_to_delete)
def confirm_deletion(client: AgentClient, thread: ThreadInfo, *, is_open: bool) -> None:
    """Ask whether to delete the thread with its messages and files."""
    st.text(thread.title)
    st.caption(texts.DELETE_CHAT_CONSEQUENCES)
    with st.container(horizontal=True):
        st.button(
            texts.DELETE,
            type="primary",
            icon=":material/delete:",
            on_click=delete_thread,
            args=(client, thread.thread_id),
            kwargs={"is_open": is_open},
        )
        if st.button(texts.CANCEL):
            ask_to_delete()
            st.rerun()
    if st.session_state.deletion_error:
        st.error(escape(st.session_state.deletion_error), icon=":material/error:")


def delete_thread(client: AgentClient, thread_id: str, *, is_open: bool) -> None:
    """Delete the thread, and redraw the page without it."""
    try:
        client.delete_thread(thread_id)
    except AgentError as error:
        st.session_state.deletion_error = str(error)
        return
    turn_registry().forget(client.user_id, thread_id)
    ask_to_delete()
    if is_open:
        go_to()
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
