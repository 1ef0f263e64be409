"""How a question and its answer look."""

import json
from base64 import b64decode
from collections.abc import Sequence

import streamlit as st

from app.schema import FileInfo, TaskEvent
from ui.chat import Chat
from ui.ending import draw_end
from ui.exchange import Exchange, Part, SubAgent, ToolUse
from ui.files import draw_files
from ui.plain import plain, with_prices
from ui.turns import Turn

LONGEST_SHOWN = 20_000


def draw(chat: Chat, one: Exchange, running: Turn | None = None, *, last: bool = False) -> None:
    """Draw a question and its answer, while it is written or with its end."""
    draw_question(chat, one.question, one.given)
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        draw_parts(one.parts, one.writing, working=running is not None)
        draw_files(chat.client, one.made, one.run_id)
        if running:
            draw_progress(chat, one, running)
        else:
            draw_end(chat, one, last=last)


def draw_question(chat: Chat, question: str, given: Sequence[FileInfo]) -> None:
    """Draw what the person wrote, as it was written, and gave."""
    if not question and not given:
        return
    with st.chat_message("user", avatar=":material/person:"):
        if question:
            st.text(question)
        draw_files(chat.client, given, "given")


def draw_parts(parts: Sequence[Part], writing: str, *, working: bool) -> None:
    """Draw what was said and done, in its order."""
    for part in parts:
        match part:
            case ToolUse():
                draw_tool(part, working=working)
            case TaskEvent():
                draw_task(part)
            case SubAgent():
                draw_sub_agent(part, working=working)
            case str():
                draw_words(part)
    if writing:
        draw_words(writing)


def draw_words(markdown: str) -> None:
    """Draw what a model said."""
    st.markdown(with_prices(markdown), anchors=False)


def draw_tool(use: ToolUse, *, working: bool) -> None:
    """Draw a tool's input and output, folded, and below it the images that it made."""
    name = f"**{plain(use.name)}**"
    if working and use.output is None:
        label, state = f"Using {name} …", "running"
    elif use.output is None:
        label, state = f"Asked for {name}", "complete"
    elif use.failed:
        label, state = f"{name} failed", "error"
    else:
        label, state = f"Used {name}", "complete"
    # Not entered by `with`: on leaving, that ticks off what still runs.
    box = st.status(label, state=state, type="compact")
    box.caption("Input")
    box.code(json.dumps(use.input, ensure_ascii=False), "json", wrap_lines=True)
    if use.output is not None:
        box.caption("Output")
        box.code(use.output[:LONGEST_SHOWN] or "(nothing)", None, wrap_lines=True)
    for image in use.images:
        st.image(b64decode(image["base64"]), caption=plain(image["name"]))


def draw_task(task: TaskEvent) -> None:
    """Draw how far a task is."""
    words = {"success": "done", "error": "failed", "cancelled": "stopped"}
    done, steps = task.data.get("done"), task.data.get("steps")
    far = f"{done} of {steps}" if steps and done is not None else ""
    said = ", ".join(filter(None, [far, words.get(task.result or "", "")]))
    label = f"**{plain(task.name)}**" + (f": {said}" if said else "")
    st.progress(min(1.0, max(0.0, done / steps)) if steps and done else 0.0, label)


def draw_sub_agent(agent: SubAgent, *, working: bool) -> None:
    """Draw what a sub-agent said and did, folded."""
    with st.expander(f"Sub-agent **{plain(agent.name)}**", icon=":material/group:", expanded=working, type="compact"):
        draw_parts(agent.parts, agent.writing, working=working)


def draw_progress(chat: Chat, one: Exchange, running: Turn) -> None:
    """Draw that the answer goes on, where its trace is, and how to stop it."""
    if not one.writing:
        st.caption(_waiting_for(one, running))
    with st.container(horizontal=True, vertical_alignment="center"):
        word, going = ("Cancel", "Cancelling …") if running.in_background else ("Stop", "Stopping …")
        st.button(
            going if running.stopping else word,
            key="stop",
            icon=":material/stop_circle:",
            type="tertiary",
            on_click=chat.stop,
            args=(running,),
            disabled=running.stopping,
        )
        if running.in_background and one.trace_url:
            st.link_button(chat.link, one.trace_url, icon=":material/link:", type="tertiary")


def _waiting_for(one: Exchange, running: Turn) -> str:
    if running.in_background:
        return "Working in the background …" if one.parts else "In the background: waiting for its turn …"
    return "Thinking …"
