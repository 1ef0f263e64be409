"""Draw the chat page, as a whole in every run of this script; `ui/serve.py` serves it."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

import telemetry
from app.client import AgentClient, AgentError, Unreachable
from app.schema import AgentInfo, ChatHistory, InterruptEvent
from ui import browser, exchange, texts, tracing
from ui.background import unfinished
from ui.chat import Chat, open_thread
from ui.components import sidebar
from ui.components.answer import draw_error, draw_exchange
from ui.components.choices import draw_choices
from ui.components.files import draw_file_strip
from ui.components.outage import draw_outage
from ui.components.question import decide_in_words, places_of
from ui.components.queue import draw_queue
from ui.components.reader import draw_reader
from ui.components.welcome import draw_welcome
from ui.exchange import Exchange
from ui.identity import Visitor, draw_login, restore_address, visitor
from ui.markdown import escape
from ui.message_queue import message_queue
from ui.service_state import ServiceState, load_state
from ui.settings import Settings, load_settings
from ui.streamlit_patches import complete_each_click, is_fragment_run
from ui.turn_registry import ChatTurn, Stage, turn_registry

STYLE = Path(__file__).with_name("page.css")
REDRAW_SECONDS = 0.15
POLL_SECONDS = 3
# How many turns of a thread are drawn, and how many a click adds.
TURNS_PER_PAGE = 40


def main() -> None:
    """Draw the page, or a sentence about what is wrong."""
    st.set_page_config(page_title=texts.PAGE_TITLE, page_icon="💬")
    try:
        complete_each_click()
        tracing.start()
        settings = load_settings()
        if who := visitor(settings):
            if who.may_log_out:
                restore_address()
            draw_chat(settings, who)
        else:
            draw_login()
    except telemetry.SettingsError as error:
        st.error(escape(str(error)), icon=":material/settings_alert:")
    except AgentError as error:
        draw_error(str(error), error.trace_id)


def draw_chat(settings: Settings, who: Visitor) -> None:
    """Draw the sidebar, the conversation so far and the answer that is being written."""
    thread_id, client = open_thread(), connect(settings, who.user_id)
    # Read before the lists are requested: a change in between has them drawn again.
    stage = stage_of(turn_registry().latest(who.user_id, thread_id))
    try:
        state = load_state(client, thread_id, *sidebar.wanted_threads())
    except Unreachable as error:
        draw_outage(client, error, is_first_page=True)
        return
    select_thread_agent(state.history)
    with st.sidebar:
        st.html(STYLE)
        in_background = sidebar.draw_top()
    with st.bottom:
        above_field = st.container(gap="xsmall")
        agent, model = draw_choices(state.info)
    client = connect(settings, who.user_id, agent.key)
    chat = Chat(client, thread_id, model, state.info.backend, in_background)
    with st.sidebar:
        sidebar.draw_threads(client, state.threads, thread_id)
        sidebar.draw_runs(client, state.runs)
        sidebar.draw_visitor(who)
    record_page_load(chat)
    if state.outage:
        draw_outage(client, state.outage, is_first_page=False)
    draw_conversation(chat, agent, state, stage, above_field)
    with st.sidebar:
        browser.draw_script()


def connect(settings: Settings, user_id: str | None, agent: str | None = None) -> AgentClient:
    """Return a client that acts for the visitor."""
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else None
    return AgentClient(str(settings.agent_url), agent, auth_secret=secret, user_id=user_id)


def select_thread_agent(history: ChatHistory) -> None:
    """Select the thread's own agent where the page was opened on an address that names none."""
    if not st.session_state.get("page_loaded") and history.agent and "agent" not in st.query_params:
        st.session_state.agent = history.agent


def record_page_load(chat: Chat) -> None:
    """Record that the page was loaded, once however often the script runs."""
    if not st.session_state.get("page_loaded"):
        st.session_state.page_loaded = True
        chat.record_event("page_load")


def stage_of(turn: ChatTurn | None) -> Stage | None:
    """Return the stage of the turn, None without a turn."""
    return turn.stage if turn else None


def draw_conversation(
    chat: Chat, agent: AgentInfo, state: ServiceState, stage: Stage | None, above_field: DeltaGenerator
) -> None:
    """Draw the conversation, the message field, and what is above the field."""
    run = unfinished(state.runs, chat.thread_id)
    turn = chat.attach(run) if run else chat.turn
    if not state.outage and is_free(turn, state.history) and message_queue().send_next(chat):
        turn = chat.turn
    running = turn if turn and not turn.done else None
    past = exchange.from_history(state.history)
    shown = exchange.with_latest(past, turn.exchange()) if turn else past
    store_ids(shown)
    with above_field:
        draw_file_strip(chat.client, state.history.files)
        draw_queue(chat)
    draw_input(chat, shown[-1].open_questions if shown else [], busy=running is not None)
    if not shown:
        draw_welcome(chat, agent)
    first = draw_earlier(len(shown))
    for number, each in enumerate(shown[first:], first):
        is_last = number == len(shown) - 1
        with st.container(key=f"exchange-{number}"):
            if is_last and running:
                draw_running_turn(chat, running, each, stage)
            else:
                draw_exchange(chat, each, last=is_last, idle=running is None)
    draw_reader(shown, chat.thread_id, running=running is not None)
    if not running:
        if st.session_state.pop("message_sent", False):
            browser.run_script(browser.FOCUS_INPUT)
        if not state.outage:
            watch_thread(chat, turn, state)
    elif running.in_background and not state.outage:
        watch_service(chat)


def draw_earlier(turns: int) -> int:
    """Return the first turn to draw, and draw a button for the earlier ones: a browser takes long for hundreds."""
    state = st.session_state
    first = max(0, turns - state.setdefault("turn_limit", TURNS_PER_PAGE))
    if first:
        st.button(
            texts.show_earlier(first),
            key="earlier",
            icon=":material/expand_less:",
            type="tertiary",
            on_click=lambda: state.update(turn_limit=state.turn_limit + TURNS_PER_PAGE),
        )
    return first


def is_free(turn: ChatTurn | None, history: ChatHistory) -> bool:
    """Return whether a waiting message can be sent: it is no answer to a question of the agent."""
    if turn is None:
        return not history.waiting
    return turn.done and turn.exchange().status != "waiting"


def draw_input(chat: Chat, questions: Sequence[InterruptEvent], *, busy: bool) -> None:
    """Draw the field for messages and files."""
    placeholder = texts.YOUR_ANSWER if questions and not busy else texts.YOUR_MESSAGE
    # Not within `st.bottom`: the page follows its end only where Streamlit itself has put the field at the bottom.
    st.chat_input(placeholder, key="message", accept_file="multiple", on_submit=send, args=(chat, questions))


def send(chat: Chat, questions: Sequence[InterruptEvent]) -> None:
    """Start a turn with what was just entered, or queue it; of several questions it answers the first."""
    state, entered = st.session_state, st.session_state.message
    if is_fragment_run():
        # A copy, which the browser sent with a redraw of the answer; Streamlit hands out the files once.
        state.copied_files = entered.files
        return
    files = entered.files or state.pop("copied_files", [])
    state.message_sent = True
    if (turn := chat.with_current_choices.turn) and not turn.done:
        message_queue().add(chat.with_current_choices, entered.text, files)
        return
    if len(list(places_of(questions))) > 1 and not files and state.thread_id == chat.thread_id:
        decide_in_words(chat, questions, entered.text)
    else:
        chat.with_current_choices.send(entered.text, files)


def store_ids(shown: list[Exchange]) -> None:
    """Keep the ids of all answers in the session state."""
    st.session_state.answers = [{"run_id": each.run_id, "trace_id": each.trace_id} for each in shown]
    st.session_state.trace_id = shown[-1].trace_id if shown else None


@st.fragment(run_every=REDRAW_SECONDS)
def draw_running_turn(chat: Chat, turn: ChatTurn, known: Exchange, stage: Stage | None) -> None:
    """Redraw the running turn, and the whole page when the turn is accepted, starts, and ends."""
    if turn.done or turn.stage != stage:
        st.rerun()
    draw_exchange(chat, exchange.merge(turn.exchange(), known), turn)


@st.fragment(run_every=POLL_SECONDS)
def watch_thread(chat: Chat, turn: ChatTurn | None, state: ServiceState) -> None:
    """Redraw the page when the thread has changed in another tab or elsewhere, and during an outage of the service.

    While others of the listed threads are being answered, the ends of these are changes, too.
    """
    others = [each for each in state.threads if each.status == "running" and each.thread_id != chat.thread_id]
    if chat.turn is not turn or chat.has_changed(state.history) or chat.has_ended(others):
        st.rerun()


@st.fragment(run_every=POLL_SECONDS)
def watch_service(chat: Chat) -> None:
    """Redraw the page when the service is away: a background run is followed without a word until it is back."""
    if not chat.is_service_reachable():
        st.rerun()


main()
