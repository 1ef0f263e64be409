"""A small component for what Streamlit cannot do while an answer is read.

It scrolls a question that was just sent to the top, offers a way back to the end, keeps what is being typed with its
thread, gives lists and tables the direction of their script, and tells screen readers when an answer begins and ends.
It draws next to nothing and returns nothing: the page
works without it.
"""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from streamlit.components.v2 import component

from ui import texts
from ui.exchange import Exchange

_FOLDER = Path(__file__).parent

_mount = component(
    "agent_chat.reader",
    html=(_FOLDER / "reader.html").read_text(),
    css=(_FOLDER / "reader.css").read_text(),
    js=(_FOLDER / "reader.js").read_text(),
    isolate_styles=False,
)


def draw_reader(exchanges: Sequence[Exchange], thread_id: str, *, running: bool) -> None:
    """Mount the component with the data that it needs of the conversation."""
    _mount(
        key="reader",
        data={
            "language": texts.LANGUAGE,
            "direction": texts.DIRECTION,
            "end": texts.TO_END,
            "sent": st.session_state.get("messages_sent", 0),
            "thread": thread_id,
            "latest": len(exchanges) - 1,
            "running": running,
            "status": _status(exchanges[-1], running=running) if exchanges else "",
        },
    )


def _status(exchange: Exchange, *, running: bool) -> str:
    if running:
        return texts.ANSWER_BEGINS
    if exchange.error:
        return texts.ANSWER_FAILED
    return texts.ANSWER_ENDS.get(exchange.status or "", texts.ANSWER_COMPLETE)
