"""What people think of an answer: given, changed, taken back, and acknowledged."""

import streamlit as st

import telemetry
from app.client import AgentError
from app.schema import FeedbackAnswer
from ui.chat import Chat
from ui.exchange import Exchange
from ui.plain import plain

KEY = "thumbs"


def draw_feedback(chat: Chat, one: Exchange) -> None:
    """Draw the thumbs as they were left, and the comment beside them."""
    vote = next((vote for vote in one.votes if vote.key == KEY), None)
    thumbs = f"thumbs-{one.run_id}"
    # Not its default: a widget whose default changes is another one, and forgets what was clicked.
    st.session_state.setdefault(thumbs, int(bool(vote.score)) if vote else None)
    st.feedback("thumbs", key=thumbs, on_change=judge, args=(chat, one))
    if st.session_state[thumbs] is not None:
        with st.popover("Comment", icon=":material/comment:", type="tertiary", key=_popover(one)):
            comment = f"comment-{one.run_id}"
            st.session_state.setdefault(comment, (vote.comment if vote else None) or "")
            st.text_area("What was good, or wrong?", key=comment, max_chars=5000)
            st.button("Send", key=f"send-{comment}", on_click=comment_on, args=(chat, one))


def draw_acknowledgement(one: Exchange) -> None:
    """Draw what became of the last word on an answer."""
    if said := _acknowledgements().get(one.run_id or ""):
        st.caption(said)


def comment_on(chat: Chat, one: Exchange) -> None:
    """Send the comment with its thumbs, and close its box: what became of it stands below."""
    judge(chat, one)
    # Another box, closed: one that is told to close stays open in a browser that was never told it had opened.
    _boxes()[one.run_id] = _boxes().get(one.run_id, 0) + 1


def judge(chat: Chat, one: Exchange) -> None:
    """Send what the thumbs and the comment say now."""
    assert one.run_id  # noqa: S101 - thumbs are drawn for answers that have a run
    chosen = st.session_state[f"thumbs-{one.run_id}"]
    score = None if chosen is None else bool(chosen)
    comment = st.session_state.get(f"comment-{one.run_id}") or None
    try:
        answer = chat.client.feedback(one.run_id, KEY, score, comment if score is not None else None)
    except AgentError as error:
        _acknowledgements()[one.run_id] = f"Your feedback was not taken: {plain(str(error))}"
        return
    if score is not None and answer.trace_id and answer.kept:
        # The service has kept its own part of a trace that was dropped; this is the page's.
        telemetry.decide(answer.trace_id, kept=True)
    _acknowledgements()[one.run_id] = acknowledgement(answer, taken_back=score is None, trace_url=one.trace_url)


def acknowledgement(answer: FeedbackAnswer, *, taken_back: bool, trace_url: str | None) -> str:
    """Return what became of a score at each place, in words."""
    what = "Taken back" if taken_back else "Thank you"
    told = "; ".join(_place(name, state) for name, state in answer.places.items())
    return f"{what}: {plain(told)}" + (f" ([trace]({trace_url}))" if trace_url and answer.kept else "")


def _place(name: str, state: str) -> str:
    words = {"sent": "stored", "queued": "queued, it will be sent"}
    said = words.get(state) or state.replace("skipped: ", "not stored, ", 1)
    return said if name == "langfuse" else f"{name}: {said}"


def _popover(one: Exchange) -> str:
    return f"commenting-{one.run_id}-{_boxes().get(one.run_id, 0)}"


def _boxes() -> dict[str | None, int]:
    return st.session_state.setdefault("comment_boxes", {})


def _acknowledgements() -> dict[str, str]:
    return st.session_state.setdefault("acknowledgements", {})
