"""Draw the questions of an agent: for a text, or for decisions about its tool calls."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import streamlit as st

from app.schema import (
    Action,
    Answer,
    Approve,
    Decision,
    Decisions,
    DecisionType,
    Edit,
    EditedAction,
    InterruptEvent,
    Reject,
    Respond,
    decision_of,
    words_of,
)
from ui import texts
from ui.chat import Chat
from ui.markdown import escape, from_model

# The question's id, and the index of the call to decide about.
Place = tuple[str, int]


def draw_open_questions(chat: Chat, questions: Sequence[InterruptEvent]) -> None:
    """Draw a card for each question; the answers are sent together, once every one has been decided."""
    for question in questions:
        with st.container(key=f"question-{question.id}"):
            if question.actions:
                for index, action in enumerate(question.actions):
                    draw_action(chat, questions, (question.id, index), action)
            else:
                draw_words(chat, questions, question)


def draw_asked(question: Any, *, waits: bool) -> None:
    """Draw a question of the agent, highlighted while it waits for the answer."""
    match question:
        case {"question": str(text)} | str(text) if waits:
            st.info(from_model(text), icon=":material/help:")
        case {"question": str(text)} | str(text):
            st.markdown(from_model(text), anchors=False)
        case _:
            st.json(question)


def draw_words(chat: Chat, questions: Sequence[InterruptEvent], question: InterruptEvent) -> None:
    """Draw a question and the answers that it offers as buttons; the message field takes any other."""
    draw_asked(question.value, waits=True)
    place = (question.id, 0)
    if place in decided():
        draw_decided(place)
        return
    options = question.value.get("options") if isinstance(question.value, dict) else None
    if isinstance(options, list):
        with st.container(horizontal=True):
            for option in map(str, options):
                st.button(
                    escape(option),
                    key=f"answer-{question.id}-{option}",
                    on_click=decide,
                    args=(chat, questions, place, option),
                )


def draw_action(chat: Chat, questions: Sequence[InterruptEvent], place: Place, action: Action) -> None:
    """Draw a call with its arguments and the decisions that are allowed."""
    name = "-".join(map(str, place))
    with st.container(border=True, key=f"action-{name}"):
        st.markdown(from_model(action.description) or escape(action.name), anchors=False)
        if place in decided():
            draw_decided(place)
            return
        allowed = set(action.allowed_decisions)
        args = json.dumps(action.args, ensure_ascii=False, indent=2)
        if "edit" in allowed:
            args = st.text_area(texts.arguments_of(escape(action.name)), args, key=f"args-{name}", height="content")
        else:
            st.code(args, language=None)
        changed = changed_arguments(place, action) is not None
        words = ""
        if allowed & {"reject", "respond"}:
            words = st.text_input(texts.REASON, key=f"words-{name}", placeholder=texts.REASON_PLACEHOLDER)
        with st.container(horizontal=True):
            if allowed & {"approve", "edit"}:
                st.button(
                    texts.DECISIONS["edit" if changed else "approve"],
                    key=f"approve-{name}",
                    type="primary",
                    disabled=not changed and "approve" not in allowed,
                    on_click=decide_with,
                    args=(chat, questions, place, action, "approve"),
                )
            for kind in ("reject", "respond"):
                if kind in allowed:
                    st.button(
                        texts.DECISIONS[kind],
                        key=f"{kind}-{name}",
                        disabled=kind == "respond" and not words,
                        on_click=decide_with,
                        args=(chat, questions, place, action, kind),
                    )


def changed_arguments(place: Place, action: Action) -> str | None:
    """Return what was entered in place of the arguments, None if they are as the agent wrote them."""
    entered = st.session_state.get(f"args-{'-'.join(map(str, place))}")
    return None if entered is None or parse_arguments(entered) == action.args else entered


def draw_decided(place: Place) -> None:
    """Draw the decision while other questions are open."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(escape(words_of(decided()[place])), width="content")
        st.button(texts.CHANGE_DECISION, key=f"change-{place}", type="tertiary", on_click=reconsider, args=(place,))


def reconsider(place: Place) -> None:
    """Ask for the decision again."""
    decided().pop(place, None)


def decided() -> dict[Place, Decision | str]:
    """Return the decisions of this session that are not sent yet."""
    return st.session_state.setdefault("decisions", {})


def decide_with(
    chat: Chat, questions: Sequence[InterruptEvent], place: Place, action: Action, kind: DecisionType
) -> None:
    """Decide with the values of the card's fields.

    Whether the arguments were changed is known now: the button may have been drawn before.
    """
    words = st.session_state.get(f"words-{'-'.join(map(str, place))}", "").strip()
    match kind:
        case "reject":
            decide(chat, questions, place, Reject(type="reject", message=words or None))
        case "respond":
            decide(chat, questions, place, Respond(type="respond", message=words))
        case _ if (entered := changed_arguments(place, action)) is not None:
            args = parse_arguments(entered)
            if args is None:
                st.toast(texts.ARGUMENTS_INVALID, icon=":material/error:")
                return
            decide(chat, questions, place, Edit(type="edit", edited_action=EditedAction(args=args)))
        case _:
            decide(chat, questions, place, Approve(type="approve"))


def parse_arguments(text: str) -> dict[str, Any] | None:
    """Return the entered arguments, None if they are not a JSON object."""
    try:
        args = json.loads(text)
    except ValueError:
        return None
    return args if isinstance(args, dict) else None


def decide(chat: Chat, questions: Sequence[InterruptEvent], place: Place, decision: Decision | str) -> None:
    """Store the decision, and send the answers once there is one for every question."""
    decided()[place] = decision
    if set(places_of(questions)) <= decided().keys():
        answers = {question.id: answer_to(question) for question in questions}
        decided().clear()
        chat.answer(answers)


def decide_in_words(chat: Chat, questions: Sequence[InterruptEvent], words: str) -> None:
    """Use the text as the answer to the first undecided question."""
    place = next(place for place in places_of(questions) if place not in decided())
    decide(chat, questions, place, words)


def places_of(questions: Sequence[InterruptEvent]) -> Iterator[Place]:
    """Yield every decision to make."""
    for question in questions:
        for index in range(len(question.actions) or 1):
            yield question.id, index


def answer_to(question: InterruptEvent) -> Answer:
    """Return the answer to a question whose decisions are complete."""
    if not question.actions:
        return decided()[question.id, 0]
    return Decisions(
        decisions=[
            decision_of(decided()[question.id, index], action.allowed_decisions)
            for index, action in enumerate(question.actions)
        ]
    )
