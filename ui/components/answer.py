"""Draw a question and its answer, with their buttons."""

import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from math import floor, log10

import streamlit as st

from app.schema import Figures, TaskEvent
from ui import texts
from ui.chat import Chat
from ui.components.copy_button import draw_copy_button
from ui.components.feedback import draw_acknowledgement, draw_feedback
from ui.components.files import draw_files
from ui.components.question import draw_asked, draw_open_questions
from ui.components.spans import draw_spans
from ui.components.versions import (
    draw_edit_button,
    draw_editor,
    draw_more_answers,
    draw_versions,
    is_edited,
)
from ui.exchange import Exchange, Part, Reasoning, SubAgent, ToolUse
from ui.export import answer_of
from ui.markdown import escape, from_model, split_blocks, split_thought
from ui.turn_registry import ChatTurn

MAX_OUTPUT_CHARACTERS = 20_000


def draw_exchange(
    chat: Chat, exchange: Exchange, running: ChatTurn | None = None, *, last: bool = False, idle: bool = False
) -> None:
    """Draw a question and its answer, while it is written or with its footer; an idle thread can be changed."""
    draw_question(chat, exchange, can_be_edited=idle and exchange.can_be_replaced)
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        draw_parts(exchange.parts, exchange.partial, exchange.reasoning, working=running is not None)
        draw_files(chat.client, exchange.outputs, exchange.run_id)
        if running:
            draw_progress(chat, exchange, running)
        else:
            draw_footer(chat, exchange, last=last, idle=idle)


def draw_question(chat: Chat, exchange: Exchange, *, can_be_edited: bool) -> None:
    """Draw a person's message as it was written, or a field to edit it, and its files."""
    if not exchange.question and not exchange.uploads:
        return
    with st.chat_message("user", avatar=":material/person:"):
        if can_be_edited and is_edited(exchange):
            draw_editor(chat, exchange)
        elif exchange.question:
            with st.container(horizontal=True, wrap=False, gap="small"):
                st.text(exchange.question, width="stretch")
                if can_be_edited:
                    draw_edit_button(exchange)
        draw_files(chat.client, exchange.uploads, "uploads")


def draw_parts(parts: Sequence[Part], partial: str, reasoning: str = "", *, working: bool) -> None:
    """Draw text, reasoning, tool calls, tasks and sub-agents in their order, and then what is being written."""
    for part in parts:
        match part:
            case ToolUse():
                draw_tool(part, working=working)
            case TaskEvent():
                draw_task(part)
            case SubAgent():
                draw_sub_agent(part, working=working)
            case Reasoning():
                draw_reasoning(part.text)
            case str():
                draw_text(part)
    if reasoning:
        draw_reasoning(reasoning)
    if partial:
        draw_text(partial)


def draw_text(markdown: str) -> None:
    """Draw the text of a model, with its reasoning collapsed.

    Each block is a separate element: while an answer is written, only the last one changes.
    """
    thought, answer = split_thought(markdown)
    if thought:
        draw_reasoning(thought)
    for block in split_blocks(answer):
        if block.strip():
            st.markdown(from_model(block), anchors=False)


def draw_reasoning(text: str) -> None:
    """Draw what a model said to itself, folded."""
    with st.expander(texts.REASONING, icon=":material/psychology:", type="compact"):
        st.markdown(from_model(text), anchors=False)


def draw_tool(use: ToolUse, *, working: bool) -> None:
    """Draw a tool's input and output, folded, and below it the images that it produced."""
    name = f"**{escape(use.name)}**"
    if working and use.output is None:
        label, state = texts.using(name), "running"
    elif use.output is None:
        label, state = texts.asked_for(name), "complete"
    elif use.failed:
        label, state = texts.failed(name), "error"
    else:
        label, state = texts.used(name), "complete"
    # Leaving a `with` block would mark a running tool as complete.
    box = st.status(label, state=state, type="compact")
    box.caption(texts.INPUT)
    # Not as JSON: the colours of its syntax are too pale for many eyes.
    box.code(json.dumps(use.input, ensure_ascii=False), None, wrap_lines=True)
    if use.output is not None:
        box.caption(texts.OUTPUT)
        box.code(use.output[:MAX_OUTPUT_CHARACTERS] or texts.NO_OUTPUT, None, wrap_lines=True)
    for image in use.images:
        st.image(b64decode(image["base64"]), caption=escape(image["name"]))


def draw_task(task: TaskEvent) -> None:
    """Draw the progress of a task."""
    done, steps = task.data.get("done"), task.data.get("steps")
    progress = texts.steps_done(done, steps) if steps and done is not None else ""
    state = ", ".join(filter(None, [progress, texts.TASK_RESULTS.get(task.result or "", "")]))
    label = f"**{escape(task.name)}**" + (f": {state}" if state else "")
    st.progress(min(1.0, max(0.0, done / steps)) if steps and done else 0.0, label)


def draw_sub_agent(agent: SubAgent, *, working: bool) -> None:
    """Draw the text and tool calls of a sub-agent, folded."""
    with st.expander(
        texts.sub_agent(f"**{escape(agent.name)}**"), icon=":material/group:", expanded=working, type="compact"
    ):
        draw_parts(agent.parts, agent.partial, agent.reasoning, working=working)


def draw_progress(chat: Chat, exchange: Exchange, running: ChatTurn) -> None:
    """Draw what the answer waits for, how to stop it, and the link to its trace."""
    if not exchange.partial:
        st.caption(_waiting_for(exchange, running))
    with st.container(horizontal=True, vertical_alignment="center"):
        labels = (texts.CANCEL_RUN, texts.CANCELLING_RUN) if running.in_background else (texts.STOP, texts.STOPPING)
        st.button(
            labels[running.stopping],
            key="stop",
            icon=":material/stop_circle:",
            type="tertiary",
            on_click=chat.stop,
            args=(running,),
            disabled=running.stopping,
        )
        if running.in_background and exchange.trace_url:
            st.link_button(chat.link, exchange.trace_url, icon=":material/link:", type="tertiary")


def _waiting_for(exchange: Exchange, running: ChatTurn) -> str:
    if running.in_background:
        return texts.WORKING_IN_BACKGROUND if exchange.parts else texts.QUEUED_IN_BACKGROUND
    return texts.THINKING


def draw_footer(chat: Chat, exchange: Exchange, *, last: bool, idle: bool) -> None:
    """Draw how an answer ended; only the last one of a thread can be answered or retried."""
    if last and exchange.open_questions:
        draw_open_questions(chat, exchange.open_questions)
    else:
        for question in exchange.questions:
            draw_asked(question, waits=False)
    draw_status(exchange)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        draw_versions(chat, exchange, idle=idle)
        if exchange.run_id:
            draw_feedback(chat, exchange)
        if answer := answer_of(exchange):
            draw_copy_button(answer, key=f"copy-{exchange.run_id}")
        if exchange.trace_url:
            st.link_button(chat.link, exchange.trace_url, icon=":material/link:", type="tertiary")
        if last and exchange.question and (exchange.error or exchange.status in ("cancelled", "failed")):
            draw_retry(chat, exchange)
        elif idle:
            draw_more_answers(chat, exchange, last=last)
        if figures := describe_figures(exchange.figures):
            st.caption(figures, width="content")
    draw_acknowledgement(exchange)
    if exchange.run_id and exchange.trace_id:
        draw_spans(chat, exchange.run_id)


def draw_status(exchange: Exchange) -> None:
    """Draw that an answer was stopped, is not over, or failed."""
    if exchange.status == "cancelled":
        st.caption(texts.STOPPED)
    if exchange.status == "running":
        st.caption(texts.NOT_FINISHED)
    if exchange.error:
        draw_error(exchange.error, exchange.trace_id)


def draw_retry(chat: Chat, exchange: Exchange) -> None:
    """Draw the button that sends the question again."""
    # Without a run the question was not sent: a file was refused, or the service was unavailable.
    st.button(
        texts.RETRY if exchange.run_id or not exchange.refused else texts.SEND_WITHOUT_FILE,
        key="retry",
        icon=":material/refresh:",
        type="tertiary",
        on_click=chat.send_from_click,
        args=(exchange.question, exchange.run_id if exchange.can_be_replaced else exchange.replaces),
    )


def draw_error(message: str, trace_id: str | None) -> None:
    """Draw what went wrong, and the id of the trace that shows more."""
    st.error(escape(message), icon=":material/error:")
    if trace_id:
        st.caption(texts.trace_id(trace_id))


def describe_figures(figures: Figures) -> str:
    """Return tokens, cost and times, as far as they are known."""
    return " · ".join(_figures(figures))


def format_cost(dollars: float) -> str:
    """Return a cost to the cent, a smaller one to two significant digits."""
    digits = 1 - floor(log10(dollars)) if dollars > 0 else 2
    return f"{dollars:.{max(2, digits)}f}"


def _figures(figures: Figures) -> Iterator[str]:
    if figures.input_tokens is not None:
        yield texts.tokens(figures.input_tokens, figures.output_tokens or 0)
    if figures.cost is not None:
        yield escape(texts.cost(format_cost(figures.cost)))
    if figures.first_token_ms is not None:
        yield texts.first_word_after(figures.first_token_ms / 1000)
    if figures.duration_ms is not None:
        yield texts.duration(figures.duration_ms / 1000)
