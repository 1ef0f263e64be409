"""The service's data for a page, cached for the time when the service does not answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError, Failed, Refused, Unreachable
from app.schema import ChatHistory, RunInfo, ServiceInfo, ThreadInfo

NOT_FOUND, NOT_IMPLEMENTED = 404, 501
# The most threads that the service returns at once.
PAGE = 200
# The service, or what is in front of it, is restarting.
AWAY = (502, 503, 504)


@dataclass(frozen=True)
class ServiceState:
    """Agents and models, the visitor's threads and runs, and one thread's history; with `outage` it is outdated."""

    info: ServiceInfo
    threads: Sequence[ThreadInfo]
    runs: Sequence[RunInfo]
    thread_id: str
    history: ChatHistory
    outage: AgentError | None = None


def load_state(client: AgentClient, thread_id: str, max_threads: int, words: str = "") -> ServiceState:
    """Return the service's state, or the last one that this page has seen while the service is unavailable.

    With `words`, only threads in which they were said are listed.

    Raises the client's error if the page has seen none, and for errors that a restart does not explain.
    """
    try:
        with telemetry.suppress_instrumentation():
            state = ServiceState(
                client.info(),
                load_threads(client, max_threads, words),
                background_runs(client),
                thread_id,
                load_history(client, thread_id),
            )
    except AgentError as error:
        last = st.session_state.get("service_state")
        if last is None or not is_outage(error):
            raise
        history = last.history if last.thread_id == thread_id else ChatHistory(messages=[])
        return replace(last, thread_id=thread_id, history=history, outage=error)
    st.session_state.service_state = state
    return state


def is_outage(error: AgentError) -> bool:
    """Return whether the service is unavailable, rather than responding with an error of its own."""
    return isinstance(error, Unreachable) or (isinstance(error, Failed) and error.status in AWAY)


def background_runs(client: AgentClient) -> Sequence[RunInfo]:
    """Return the visitor's background runs, none if the service has no engine for them."""
    try:
        return client.get_runs().runs
    except Failed as error:
        if error.status != NOT_IMPLEMENTED:
            raise
        return []


def load_threads(client: AgentClient, limit: int, words: str = "") -> Sequence[ThreadInfo]:
    """Return at most so many threads, the latest first."""
    threads: list[ThreadInfo] = []
    while (missing := limit - len(threads)) > 0:
        before = threads[-1].updated if threads else None
        page = client.get_threads(min(missing, PAGE), before, words or None).threads
        threads += page
        if len(page) < min(missing, PAGE):
            break
    return threads


def load_history(client: AgentClient, thread_id: str) -> ChatHistory:
    """Return the thread's history, which is empty for a new thread."""
    try:
        return client.get_history(thread_id)
    except Refused as error:
        if error.status != NOT_FOUND:
            raise
        return ChatHistory(messages=[])
