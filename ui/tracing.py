"""Tracing of the page's process, and the span that is the root of a turn's trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from opentelemetry.trace import Span

import telemetry


@st.cache_resource(show_spinner=False)
def start() -> None:
    """Tracing is on, once for the process, however often the script runs."""
    telemetry.configure("agent-ui")


@contextmanager
def chat_turn(thread_id: str, user_id: str | None, message: str) -> Iterator[Span]:
    """The root span of one turn; everything inside carries the session and the user."""
    with (
        telemetry.scope(session_id=thread_id, user_id=user_id, trace_name="chat turn"),
        telemetry.span("chat turn", kind="CHAIN", **{"input.value": message}) as span,
    ):
        yield span
