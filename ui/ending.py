"""How an answer ended: what it waits for, what went wrong, what it took, and what can be done about it."""

from collections.abc import Iterator
from math import floor, log10
from typing import Any

import streamlit as st

from app.schema import Figures
from ui.chat import Chat
from ui.exchange import Exchange
from ui.feedback import draw_acknowledgement, draw_feedback
from ui.plain import plain, with_prices

# A number and its unit stay on one line.
NARROW = "\N{NO-BREAK SPACE}"


def draw_end(chat: Chat, one: Exchange, *, last: bool) -> None:
    """Draw the end of an answer; only the last one of a thread can still be gone on with."""
    for number, asked in enumerate(one.asked):
        draw_asked(asked, waits=last)
        if last:
            draw_options(chat, asked, f"{one.run_id}-{number}")
    if one.status == "cancelled":
        st.caption("Stopped.")
    if one.status == "running":
        st.caption("Not over yet: it is being answered elsewhere, or was cut off.")
    if one.error:
        complain(one.error, one.trace_id)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if one.run_id:
            draw_feedback(chat, one)
        if one.trace_url:
            st.link_button(chat.link, one.trace_url, icon=":material/link:", type="tertiary")
        if last and one.question and (one.error or one.status in ("cancelled", "failed")):
            draw_retry(chat, one)
        if told := figures(one.figures):
            st.caption(told, width="content")
    draw_acknowledgement(one)


def draw_retry(chat: Chat, one: Exchange) -> None:
    """Draw the way to ask again."""
    # Without a run nothing was asked: a file was refused, or nobody was there.
    label = "Retry" if one.run_id or not one.refused else "Send without it"
    st.button(
        label, key="retry", icon=":material/refresh:", type="tertiary", on_click=chat.send_again, args=(one.question,)
    )


def draw_asked(asked: Any, *, waits: bool) -> None:
    """Draw what the agent asked, set off as long as it waits for the answer."""
    match asked:
        case {"question": str(question)} | str(question) if waits:
            st.info(with_prices(question), icon=":material/help:")
        case {"question": str(question)} | str(question):
            st.markdown(with_prices(question), anchors=False)
        case _:
            st.json(asked)


def draw_options(chat: Chat, asked: Any, key: str) -> None:
    """Draw the answers that the agent offers as buttons; the line below takes any other."""
    options = asked.get("options") if isinstance(asked, dict) else None
    if isinstance(options, list):
        with st.container(horizontal=True):
            for option in map(str, options):
                st.button(plain(option), key=f"answer-{key}-{option}", on_click=chat.send, args=(option,))


def complain(sentence: str, trace_id: str | None) -> None:
    """Draw what went wrong, and the trace that tells more."""
    st.error(plain(sentence), icon=":material/error:")
    if trace_id:
        st.caption(f"Trace `{trace_id}`")


def figures(took: Figures) -> str:
    """Return what an answer took, as far as it is known."""
    return " · ".join(_told(took))


def dollars(cost: float) -> str:
    """Return a cost to the cent, a smaller one to two digits that count."""
    digits = 1 - floor(log10(cost)) if cost > 0 else 2
    return f"{cost:.{max(2, digits)}f}"


def _told(took: Figures) -> Iterator[str]:
    if took.input_tokens is not None:
        yield f"{took.input_tokens} tokens in, {took.output_tokens or 0} out"
    if took.cost is not None:
        yield f"\\${dollars(took.cost)}"
    if took.first_token_ms is not None:
        yield f"first word after {took.first_token_ms / 1000:.1f}{NARROW}s"
    if took.duration_ms is not None:
        yield f"{took.duration_ms / 1000:.1f}{NARROW}s"
