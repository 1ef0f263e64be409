"""The chat page, drawn anew by every run: `python -m streamlit run ui/page.py` from the project's root."""

import json
from typing import Any
from uuid import uuid4

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError, Refused, Unreachable
from app.schema import AgentInfo, ServiceInfo
from ui import exchange, tracing
from ui.exchange import Exchange, ToolUse
from ui.settings import Settings, load_settings
from ui.turns import Turn, turns

REDRAW_SECONDS = 0.15
LONGEST_SHOWN = 20_000


def main() -> None:
    """Draw the page; what is wrong is told in words."""
    st.set_page_config(page_title="Agent chat", page_icon="💬")
    try:
        tracing.start()
        chat(load_settings())
    except telemetry.SettingsError as error:
        st.error(str(error), icon=":material/settings_alert:")
    except Unreachable as error:
        st.error(f"{error} Start it with `python -m app`, or set `AGENT_URL` to where it runs.")
        st.button("Try again", icon=":material/refresh:")
    except AgentError as error:
        complain(str(error), error.trace_id)


def chat(settings: Settings) -> None:
    """Draw the sidebar, the conversation so far and the answer that is being written."""
    user_id, thread_id = visitor(settings), open_thread()
    with telemetry.untraced():
        info = connect(settings, user_id).info()
    agent, model = choose(info)
    client = connect(settings, user_id, agent.key)
    turn = turns().latest(user_id, thread_id)
    running = turn if turn and not turn.done else None
    entry(client, thread_id, model, busy=running is not None)
    past = conversation(client, thread_id, turn)
    remember(past)
    if not past:
        welcome(agent)
    for one in past[:-1] if running else past:
        draw(one)
    if running:
        watch(running)


def visitor(settings: Settings) -> str | None:
    """Return the user that the proxy before this page names, None where no proxy is expected to."""
    if settings.user_id_header is None:
        return None
    user_id = st.context.headers.get(settings.user_id_header)
    if not user_id:
        raise Refused(f"The request has no {settings.user_id_header} header: open this page through its proxy.", 401)
    return user_id


def open_thread() -> str:
    """Return the thread of this page; it stands in the address, so that a reload finds it again."""
    asked = st.query_params.get("thread_id")
    thread_id = st.session_state.setdefault("thread_id", asked or str(uuid4()))
    st.query_params["thread_id"] = thread_id
    return thread_id


def connect(settings: Settings, user_id: str | None, agent: str | None = None) -> AgentClient:
    """Return a client that speaks for the visitor."""
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else None
    return AgentClient(str(settings.agent_url), agent, auth_secret=secret, user_id=user_id)


def choose(info: ServiceInfo) -> tuple[AgentInfo, str]:
    """Draw the sidebar and return the agent and the model chosen there."""
    agents = {agent.key: agent for agent in info.agents}
    with st.sidebar:
        st.title("Agent chat")
        st.button("New chat", icon=":material/edit_square:", on_click=new_chat, width="stretch")
        key = st.selectbox("Agent", agents, list(agents).index(info.default_agent), key="agent", bind="query-params")
        if agents[key].error:
            st.warning(f"This agent could not be loaded: {agents[key].error}")
        at = info.models.index(info.default_model)
        model = st.selectbox("Model", info.models, at, key="model", bind="query-params")
    return agents[key], model


def new_chat() -> None:
    """Make the page open a thread of its own next."""
    st.session_state.thread_id = str(uuid4())


def entry(client: AgentClient, thread_id: str, model: str, *, busy: bool) -> None:
    """Draw the line that messages are written in."""
    st.chat_input("Your message", key="message", disabled=busy, on_submit=send, args=(client, thread_id, model))


def send(client: AgentClient, thread_id: str, model: str) -> None:
    """Begin a turn with the message that was just entered."""
    turn = Turn(client, thread_id, st.session_state.message, model)
    if not turns().begin(turn):
        st.toast("This chat is still being answered elsewhere: wait for it, or stop it.")


def conversation(client: AgentClient, thread_id: str, turn: Turn | None) -> list[Exchange]:
    """Return the thread's exchanges: the service's, and the latest as this process saw it."""
    try:
        with telemetry.untraced():
            past = exchange.from_history(client.get_history(thread_id))
    except Refused as error:
        if error.status != 404:
            raise
        past = []
    return exchange.with_latest(past, turn.exchange()) if turn else past


def remember(past: list[Exchange]) -> None:
    """Leave the ids of all answers in the session's state."""
    st.session_state.answers = [{"run_id": one.run_id, "trace_id": one.trace_id} for one in past]
    st.session_state.trace_id = past[-1].trace_id if past else None


def welcome(agent: AgentInfo) -> None:
    """Draw what an empty chat shows."""
    st.header("What can I do for you?", anchor=False)
    st.caption(agent.description)


@st.fragment(run_every=REDRAW_SECONDS)
def watch(turn: Turn) -> None:
    """Draw the running turn again and again, and the whole page once it is over."""
    if turn.done:
        st.rerun()
    draw(turn.exchange(), turn)


def draw(one: Exchange, running: Turn | None = None) -> None:
    """Draw a question and its answer."""
    if one.question:
        with st.chat_message("user", avatar=":material/person:"):
            st.text(one.question)
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        for part in one.parts:
            if isinstance(part, ToolUse):
                draw_tool(part, running)
            else:
                st.markdown(part)
        if one.writing:
            st.markdown(one.writing)
        if running:
            draw_progress(one, running)
        else:
            draw_end(one)


def draw_tool(use: ToolUse, running: Turn | None) -> None:
    """Draw a tool's input and output, folded."""
    if running and use.output is None:
        label, state = f"Using **{use.name}** …", "running"
    elif use.output is None:
        label, state = f"Asked for **{use.name}**", "complete"
    elif use.failed:
        label, state = f"**{use.name}** failed", "error"
    else:
        label, state = f"Used **{use.name}**", "complete"
    with st.status(label, state=state, type="compact"):
        st.caption("Input")
        st.code(json.dumps(use.input, ensure_ascii=False), "json", wrap_lines=True)
        if use.output is not None:
            st.caption("Output")
            st.code(use.output[:LONGEST_SHOWN] or "(nothing)", None, wrap_lines=True)


def draw_progress(one: Exchange, running: Turn) -> None:
    """Draw that the answer goes on, and how to stop it."""
    if not one.writing:
        st.caption("Thinking …")
    st.button(
        "Stopping …" if running.stopping else "Stop",
        key="stop",
        icon=":material/stop_circle:",
        type="tertiary",
        on_click=running.stop,
        disabled=running.stopping,
    )


def draw_end(one: Exchange) -> None:
    """Draw how the answer ended, and the way to its trace."""
    if one.asked is not None:
        draw_question(one.asked)
    if one.status == "cancelled":
        st.caption("Stopped.")
    if one.error:
        complain(one.error, one.trace_id)
    if one.trace_url:
        st.link_button("View trace", one.trace_url, icon=":material/link:", type="tertiary")


def draw_question(asked: Any) -> None:
    """Draw what the agent waits for; the next message answers it."""
    match asked:
        case {"question": str(question), "options": [*options]}:
            st.info(f"{question} ({' / '.join(map(str, options))})", icon=":material/help:")
        case {"question": str(question)} | str(question):
            st.info(question, icon=":material/help:")
        case _:
            st.json(asked)


def complain(sentence: str, trace_id: str | None) -> None:
    """Draw what went wrong, and the trace that tells more."""
    st.error(sentence, icon=":material/error:")
    if trace_id:
        st.caption(f"Trace `{trace_id}`")


main()
