"""Draw that the service is unavailable, and continue automatically once it is back."""

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError
from ui import texts
from ui.markdown import escape

RECONNECT_SECONDS = 2


def draw_outage(client: AgentClient, error: AgentError, *, is_first_page: bool) -> None:
    """Draw the error: alone where the page has nothing else to show, else as a line above what it showed last."""
    if is_first_page:
        st.error(f"{escape(str(error))} {texts.START_THE_SERVICE}")
        st.button(texts.TRY_AGAIN, icon=":material/refresh:")
    else:
        with st.container(key="outage"):
            st.warning(f"{escape(str(error))}\n\n{texts.RECONNECTING}", icon=":material/cloud_off:")
    reconnect(client)


@st.fragment(run_every=RECONNECT_SECONDS)
def reconnect(client: AgentClient) -> None:
    """Redraw the page once the service answers."""
    try:
        with telemetry.suppress_instrumentation():
            client.info()
    except AgentError:
        return
    st.rerun()
