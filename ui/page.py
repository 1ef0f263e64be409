"""The chat page, drawn anew by every run; `ui/serve.py` serves it."""

from collections.abc import Sequence

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError, Failed, Refused, Unreachable
from app.schema import AgentInfo, ChatHistory, RunInfo
from ui import browser, exchange, sidebar, tracing
from ui.answer import draw
from ui.background import unfinished
from ui.chat import Chat, open_thread
from ui.clicks import count_every_click
from ui.ending import complain
from ui.exchange import Exchange
from ui.identity import Visitor, come_back, login, visitor
from ui.plain import plain
from ui.settings import Settings, load_settings
from ui.turns import Stage, Turn, turns

REDRAW_SECONDS = 0.15
LOOK_AROUND_SECONDS = 3
NO_BACKGROUND = 501


def main() -> None:
    """Draw the page; what is wrong is told in words."""
    st.set_page_config(page_title="Agent chat", page_icon="💬")
    try:
        count_every_click()
        tracing.start()
        settings = load_settings()
        if who := visitor(settings):
            if who.may_log_out:
                come_back()
            show(settings, who)
        else:
            login()
    except telemetry.SettingsError as error:
        st.error(plain(str(error)), icon=":material/settings_alert:")
    except Unreachable as error:
        st.error(f"{plain(str(error))} Start it with `python -m app`, or set `AGENT_URL` to where it runs.")
        st.button("Try again", icon=":material/refresh:")
    except AgentError as error:
        complain(str(error), error.trace_id)


def show(settings: Settings, who: Visitor) -> None:
    """Draw the sidebar, the conversation so far and the answer that is being written."""
    thread_id, anybody = open_thread(), connect(settings, who.user_id)
    # Before the lists are asked for: what changes meanwhile is a reason to draw them again.
    stage = stage_of(turns().latest(who.user_id, thread_id))
    with telemetry.untraced():
        info, runs = anybody.info(), background_runs(anybody)
    told = history(anybody, thread_id)
    meet_again(told)
    with st.sidebar:
        agent, model, in_background = sidebar.choose(info)
        client = connect(settings, who.user_id, agent.key)
        chat = Chat(client, thread_id, model, info.backend, in_background)
        sidebar.draw_threads(client, thread_id)
        sidebar.draw_runs(client, runs)
        sidebar.draw_list_of(client, told.files)
        sidebar.draw_visitor(who)
    arrive(chat)
    converse(chat, agent, told, unfinished(runs, thread_id), stage)
    with st.sidebar:
        browser.draw_asked()


def connect(settings: Settings, user_id: str | None, agent: str | None = None) -> AgentClient:
    """Return a client that speaks for the visitor."""
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else None
    return AgentClient(str(settings.agent_url), agent, auth_secret=secret, user_id=user_id)


def background_runs(client: AgentClient) -> Sequence[RunInfo]:
    """Return the visitor's background runs, none where the service has no engine for them."""
    try:
        return client.get_runs().runs
    except Failed as error:
        if error.status != NO_BACKGROUND:
            raise
        return []


def history(client: AgentClient, thread_id: str) -> ChatHistory:
    """Return what the service knows of the thread, nothing of a new one."""
    try:
        with telemetry.untraced():
            return client.get_history(thread_id)
    except Refused as error:
        if error.status != 404:
            raise
        return ChatHistory(messages=[])


def meet_again(told: ChatHistory) -> None:
    """Have the thread's own agent chosen for somebody who comes with nothing but its address."""
    if not st.session_state.get("arrived") and told.agent and "agent" not in st.query_params:
        st.session_state.agent = told.agent


def arrive(chat: Chat) -> None:
    """Have the page's load recorded, once however often the script runs."""
    if not st.session_state.get("arrived"):
        st.session_state.arrived = True
        chat.tell("page_load")


def stage_of(turn: Turn | None) -> Stage | None:
    """Return how far the turn is, None without one."""
    return turn.stage if turn else None


def converse(chat: Chat, agent: AgentInfo, told: ChatHistory, run: RunInfo | None, stage: Stage | None) -> None:
    """Draw the conversation and the line to go on with it."""
    turn = chat.attach(run) if run else chat.turn
    running = turn if turn and not turn.done else None
    past = exchange.from_history(told)
    shown = exchange.with_latest(past, turn.exchange()) if turn else past
    remember(shown)
    entry(chat, busy=running is not None, asked=bool(shown and shown[-1].asked))
    if not shown:
        welcome(agent)
    for one in shown[:-1]:
        draw(chat, one)
    if running:
        watch(chat, running, shown[-1], stage)
    elif shown:
        draw(chat, shown[-1], last=True)
    if not running:
        if st.session_state.pop("typed", False):
            browser.ask(browser.BACK_TO_THE_LINE)
        look_around(chat, turn, told)


def entry(chat: Chat, *, busy: bool, asked: bool) -> None:
    """Draw the line that messages are written in, and files are dropped on."""
    hint = "Your answer" if asked and not busy else "Your message"
    st.chat_input(hint, key="message", accept_file="multiple", disabled=busy, on_submit=send, args=(chat,))


def send(chat: Chat) -> None:
    """Begin a turn with what was just entered."""
    entered = st.session_state.message
    st.session_state.typed = True
    chat.as_chosen.send(entered.text, entered.files)


def remember(shown: list[Exchange]) -> None:
    """Leave the ids of all answers in the session's state."""
    st.session_state.answers = [{"run_id": one.run_id, "trace_id": one.trace_id} for one in shown]
    st.session_state.trace_id = shown[-1].trace_id if shown else None


def welcome(agent: AgentInfo) -> None:
    """Draw what an empty chat shows."""
    st.header("What can I do for you?", anchor=False)
    st.caption(agent.description)


@st.fragment(run_every=REDRAW_SECONDS)
def watch(chat: Chat, turn: Turn, told: Exchange, stage: Stage | None) -> None:
    """Draw the running turn again and again, and the whole page once it is accepted, has begun, and is over."""
    if turn.done or turn.stage != stage:
        st.rerun()
    draw(chat, exchange.joined(turn.exchange(), told), turn)


@st.fragment(run_every=LOOK_AROUND_SECONDS)
def look_around(chat: Chat, turn: Turn | None, told: ChatHistory) -> None:
    """Draw the whole page anew once the thread has gone on in another tab, or anywhere else."""
    if chat.turn is not turn or chat.has_moved(told):
        st.rerun()


main()
