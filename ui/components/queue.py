"""Draw the messages that wait for the end of an answer."""

import streamlit as st

from ui import texts
from ui.chat import Chat
from ui.markdown import escape
from ui.message_queue import message_queue


def draw_queue(chat: Chat) -> None:
    """Draw each message that waits, and a button that takes it out."""
    for number, waiting in enumerate(message_queue().of(chat)):
        with st.container(
            horizontal=True, wrap=False, vertical_alignment="center", gap="xsmall", key=f"queued-{number}"
        ):
            st.caption(texts.next_message(escape(waiting.message)))
            st.button(
                texts.do_not_send(escape(waiting.message[:60])),
                key=f"delete-queued-{number}",
                help=texts.DO_NOT_SEND,
                icon=":material/close:",
                type="tertiary",
                on_click=message_queue().remove,
                args=(chat, waiting),
            )
