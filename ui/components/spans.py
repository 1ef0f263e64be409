"""Draw the tree of a turn, which the service knows before any backend has it."""

from collections.abc import Sequence
from html import escape

import streamlit as st

import telemetry
from app.client import AgentError
from app.schema import SpanInfo
from ui import texts
from ui.chat import Chat
from ui.markdown import escape as escape_markdown


def draw_spans(chat: Chat, run_id: str) -> None:
    """Draw the steps of a run, folded; they are fetched when somebody opens them."""
    steps = st.expander(
        texts.STEPS, key=f"spans-{run_id}", icon=":material/account_tree:", type="compact", on_change="rerun"
    )
    if not steps.open:
        return
    with steps:
        try:
            with telemetry.suppress_instrumentation():
                spans = chat.client.get_spans(run_id).spans
        except AgentError as error:
            st.caption(escape_markdown(str(error)))
            return
        if spans:
            st.html(as_html(spans))
        else:
            st.caption(texts.NO_STEPS)


def as_html(spans: Sequence[SpanInfo]) -> str:
    """Return the tree as a list, with a bar for the time of each span within the turn."""
    whole = max(1, spans[0].duration_ms)
    return f'<ul class="spans">{"".join(_row(span, whole) for span in spans)}</ul>'


def _row(span: SpanInfo, whole: int) -> str:
    start = min(100.0, max(0.0, 100 * span.start_ms / whole))
    width = min(100.0 - start, 100 * span.duration_ms / whole)
    facts = [texts.duration(span.duration_ms / 1000, digits=2)]
    if span.input_tokens is not None:
        facts.append(texts.step_tokens(span.input_tokens, span.output_tokens or 0))
    if span.failed:
        facts.append(texts.STEP_FAILED)
    state = "failed" if span.failed else ""
    return (
        f'<li class="{state}" style="padding-inline-start:{min(span.depth, 12)}rem">'
        f"<span>{escape(span.name)} <small>{escape(span.kind or '')}</small></span>"
        f"<small>{' · '.join(facts)}</small>"
        f'<i style="margin-inline-start:{start:.1f}%;width:{max(width, 0.5):.1f}%"></i></li>'
    )
