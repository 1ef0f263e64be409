"""Draw what leads to another version of a question or its answer, and the way between them."""

import streamlit as st

from ui import texts
from ui.chat import Chat
from ui.exchange import Exchange


def draw_versions(chat: Chat, exchange: Exchange, *, idle: bool) -> None:
    """Draw which of the versions this is, if there are several, and the way to the others."""
    if exchange.run_id not in exchange.versions:
        return
    place = exchange.versions.index(exchange.run_id or "")
    steps = (
        ("previous", texts.PREVIOUS_VERSION, "chevron_left", place - 1),
        ("next", texts.NEXT_VERSION, "chevron_right", place + 1),
    )
    with st.container(horizontal=True, width="content", gap=None, vertical_alignment="center", key=_key("v", exchange)):
        for name, label, icon, to in steps:
            is_there = 0 <= to < len(exchange.versions)
            st.button(
                label,
                key=_key(name, exchange),
                icon=f":material/{icon}:",
                type="tertiary",
                disabled=not (is_there and idle),
                on_click=chat.show_version,
                args=(exchange.versions[to] if is_there else "",),
            )
            if name == "previous":
                st.caption(f"{place + 1} / {len(exchange.versions)}", width="content")


def draw_more_answers(chat: Chat, exchange: Exchange, *, last: bool) -> None:
    """Draw the buttons that ask the question again, and for the rest of an answer that was cut by its length."""
    if exchange.can_be_replaced:
        st.button(
            texts.REGENERATE,
            key=_key("regenerate", exchange),
            help=texts.REGENERATE_HELP,
            icon=":material/refresh:",
            type="tertiary",
            on_click=chat.send_from_click,
            args=(exchange.question, exchange.run_id),
        )
    if last and exchange.was_cut:
        st.button(
            texts.CONTINUE,
            key="continue",
            icon=":material/arrow_forward:",
            type="tertiary",
            on_click=chat.send_from_click,
            args=(texts.CONTINUE_MESSAGE,),
        )


def draw_edit_button(exchange: Exchange) -> None:
    """Draw the button that opens the field."""
    st.button(
        texts.EDIT_MESSAGE,
        key=_key("edit", exchange),
        help=texts.EDIT,
        icon=":material/edit:",
        type="tertiary",
        on_click=_edit,
        args=(exchange,),
    )


def is_edited(exchange: Exchange) -> bool:
    """Return whether the question is being edited."""
    return st.session_state.get("edited_run") == exchange.run_id


def draw_editor(chat: Chat, exchange: Exchange) -> None:
    """Draw the field with the question, and what to do with it."""
    field = _key("edited", exchange)
    st.text_area(texts.EDITED_MESSAGE, key=field, height="content", label_visibility="collapsed")
    st.caption(texts.EDIT_CONSEQUENCES)
    with st.container(horizontal=True):
        st.button(texts.SEND, key="edit-send", type="primary", on_click=_send, args=(chat, exchange))
        st.button(texts.CANCEL, key="edit-cancel", on_click=_edit, args=(None,))


def _edit(exchange: Exchange | None) -> None:
    st.session_state.edited_run = exchange.run_id if exchange else None
    if exchange:
        st.session_state[_key("edited", exchange)] = exchange.question


def _send(chat: Chat, exchange: Exchange) -> None:
    message = st.session_state[_key("edited", exchange)].strip()
    if message:
        _edit(None)
        chat.send_from_click(message, exchange.run_id)


def _key(name: str, exchange: Exchange) -> str:
    return f"{name}-{exchange.run_id}"
