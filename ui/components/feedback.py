"""Draw the vote on an answer: given, changed, taken back, and acknowledged."""

import streamlit as st

import telemetry
from app.client import AgentError
from app.schema import FeedbackAnswer
from ui import texts
from ui.chat import Chat
from ui.exchange import Exchange
from ui.markdown import escape

SCORE_NAME = "thumbs"


def draw_feedback(chat: Chat, exchange: Exchange) -> None:
    """Draw the thumbs as they were left, and the comment beside them."""
    vote = next((vote for vote in exchange.votes if vote.key == SCORE_NAME), None)
    thumbs = f"thumbs-{exchange.run_id}"
    # Not as `default`: a widget whose default changes is a new one, and forgets what was clicked.
    st.session_state.setdefault(thumbs, int(bool(vote.score)) if vote else None)
    st.feedback("thumbs", key=thumbs, on_change=send_vote, args=(chat, exchange))
    if st.session_state[thumbs] is not None:
        with st.popover(texts.COMMENT, icon=":material/comment:", type="tertiary", key=_popover(exchange)):
            comment = f"comment-{exchange.run_id}"
            st.session_state.setdefault(comment, (vote.comment if vote else None) or "")
            st.text_area(texts.COMMENT_QUESTION, key=comment, max_chars=5000)
            st.button(texts.SEND, key=f"send-{comment}", on_click=send_comment, args=(chat, exchange))


def draw_acknowledgement(exchange: Exchange) -> None:
    """Draw the status of the latest vote on an answer."""
    if text := _acknowledgements().get(exchange.run_id or ""):
        st.caption(text)


def send_comment(chat: Chat, exchange: Exchange) -> None:
    """Send the comment with its thumbs, and close the popover: the acknowledgement is below it."""
    send_vote(chat, exchange)
    # A new popover, closed: one that is told to close stays open in a browser that has not reported it as open.
    _popovers()[exchange.run_id] = _popovers().get(exchange.run_id, 0) + 1


def send_vote(chat: Chat, exchange: Exchange) -> None:
    """Send the thumbs and the comment as they stand now."""
    assert exchange.run_id  # noqa: S101 - thumbs are drawn for answers that have a run
    chosen = st.session_state[f"thumbs-{exchange.run_id}"]
    score = None if chosen is None else bool(chosen)
    comment = st.session_state.get(f"comment-{exchange.run_id}") or None
    try:
        answer = chat.client.feedback(exchange.run_id, SCORE_NAME, score, comment if score is not None else None)
    except AgentError as error:
        _acknowledgements()[exchange.run_id] = texts.feedback_failed(escape(str(error)))
        return
    if score is not None and answer.trace_id and answer.kept:
        # The service has kept its own spans of a dropped trace; this keeps the page's.
        telemetry.restore_trace(answer.trace_id)
    _acknowledgements()[exchange.run_id] = describe(answer, taken_back=score is None, trace_url=exchange.trace_url)


def describe(answer: FeedbackAnswer, *, taken_back: bool, trace_url: str | None) -> str:
    """Return the status of a score at each backend, as text."""
    states = "; ".join(_describe_state(name, state) for name, state in answer.places.items())
    link = f" ([{texts.SCORE_TRACE}]({trace_url}))" if trace_url and answer.kept else ""
    return f"{texts.TAKEN_BACK if taken_back else texts.THANK_YOU}: {escape(states)}{link}"


def _describe_state(backend: str, state: str) -> str:
    known = {"sent": texts.SCORE_SENT, "queued": texts.SCORE_QUEUED}
    text = known.get(state) or texts.score_skipped(state.removeprefix("skipped: "))
    return text if backend == "langfuse" else f"{backend}: {text}"


def _popover(exchange: Exchange) -> str:
    return f"commenting-{exchange.run_id}-{_popovers().get(exchange.run_id, 0)}"


def _popovers() -> dict[str | None, int]:
    return st.session_state.setdefault("comment_popovers", {})


def _acknowledgements() -> dict[str, str]:
    return st.session_state.setdefault("acknowledgements", {})
