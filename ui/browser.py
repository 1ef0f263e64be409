"""What only the browser can do, asked of it once a page is drawn."""

from uuid import uuid4

import streamlit as st

# Answering has taken the line away from who was typing in it; a phone would bring its keyboard up.
BACK_TO_THE_LINE = """
if (matchMedia("(pointer: fine)").matches && document.activeElement === document.body)
  document.querySelector('[data-testid="stChatInputTextArea"]')?.focus({ preventScroll: true });
"""
# On a narrow screen it covers what was chosen in it.
FOLD_THE_SIDEBAR = """
if (matchMedia("(max-width: 768px)").matches)
  document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click();
"""


def ask(script: str) -> None:
    """Have the browser run this script after the next drawing."""
    st.session_state.asked_of_browser = script


def draw_asked() -> None:
    """Draw what the browser was asked for, once."""
    if script := st.session_state.pop("asked_of_browser", None):
        # Twice the same would be one element, which has run.
        st.html(f"<script>{script}// {uuid4()}\n</script>", unsafe_allow_javascript=True)
