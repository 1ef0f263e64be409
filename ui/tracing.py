"""Trace the page's process, and make the root span of each turn."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from dotenv import load_dotenv
from opentelemetry.trace import Span

import telemetry
from telemetry.context import shows_turn


@st.cache_resource(show_spinner=False)
def start() -> None:
    """Read `.env` and start tracing, once for the process, however often the script runs."""
    load_dotenv()
    telemetry.configure("agent-ui")


@contextmanager
def chat_turn(message: str, *, thread_id: str, user_id: str | None, agent: str | None) -> Iterator[Span]:
    """Make the root span of a turn; the spans within get its session, user and agent."""
    with (
        telemetry.scope(session_id=thread_id, user_id=user_id, agent=agent),
        telemetry.span("chat turn", kind="CHAIN", **{"input.value": message}) as span,
        shows_turn(),
    ):
        yield span
