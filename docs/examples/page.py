"""A Streamlit page for a service of another team: only the page is traced.

A service that continues W3C traces hangs its own spans below; for one that does not, the page's are the trace.

    python -m streamlit run page.py
"""

import os
from uuid import uuid4

import httpx
import streamlit as st

import telemetry

SERVICE = os.environ.get("SERVICE_URL") or "http://127.0.0.1:8000"

# The script runs again at every click; only the first call has an effect.
telemetry.configure("chat-page")
# Trace headers are sent to trusted hosts only.
telemetry.trust(SERVICE)

thread_id = st.session_state.setdefault("thread_id", str(uuid4()))

if question := st.chat_input("Ask"):
    st.chat_message("user").write(question)
    # Call nothing of Streamlit inside: it may stop the script there, and end the span too early.
    with telemetry.scope(session_id=thread_id, user_id="ada"), telemetry.span("chat turn", kind="AGENT") as span:
        span.set_attribute("input.value", question)
        asked = {"message": question, "thread_id": thread_id, "user_id": "ada"}
        answer = httpx.post(f"{SERVICE}/chat", json=asked, timeout=60).raise_for_status().json()
        span.set_attribute("output.value", answer)
        trace = telemetry.current_trace()
    st.chat_message("assistant").write(answer)
    if trace and trace.url:
        st.link_button("View the trace", trace.url)
