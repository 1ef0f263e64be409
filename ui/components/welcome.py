"""Draw an empty chat: what the agent is for, and messages to begin with."""

import streamlit as st

from app.schema import AgentInfo
from ui import texts
from ui.chat import Chat
from ui.markdown import escape

DEMO_MODEL = "demo"


def title_of(agent: AgentInfo) -> str:
    """Return the agent's name for users."""
    return agent.title or agent.key


def draw_welcome(chat: Chat, agent: AgentInfo) -> None:
    """Draw the agent's title, its description and its starters, which a click sends."""
    st.header(texts.WELCOME, anchor=False)
    st.markdown(f"**{escape(title_of(agent))}** · {escape(agent.description)}")
    if not agent.starters:
        return
    if chat.model == DEMO_MODEL:
        st.caption(texts.DEMO_NOTE)
    with st.container(key="starters"):
        for number, message in enumerate(agent.starters):
            st.button(
                escape(message),
                key=f"starter-{agent.key}-{number}",
                width="stretch",
                on_click=chat.send_from_click,
                args=(message,),
            )
