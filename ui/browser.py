"""Scripts that run in the browser once the page is drawn."""

from uuid import uuid4

import streamlit as st

from ui.streamlit_patches import CHAT_INPUT, COLLAPSE_BUTTON

# Answering disables the message field, which takes the focus from it; a phone would open its keyboard.
FOCUS_INPUT = f"""
if (matchMedia("(pointer: fine)").matches && document.activeElement === document.body)
  document.querySelector('[data-testid="{CHAT_INPUT}"]')?.focus({{ preventScroll: true }});
"""
# The button that was clicked is gone.
FOCUS_UNDO = "document.querySelector('[class*=\"st-key-undo-\"] button')?.focus();"
# On a narrow screen the sidebar covers the chat that was chosen in it.
COLLAPSE_SIDEBAR = f"""
if (matchMedia("(max-width: 768px)").matches)
  document.querySelector('[data-testid="{COLLAPSE_BUTTON}"] button')?.click();
"""


def run_script(script: str) -> None:
    """Run this script in the browser after the next drawing."""
    st.session_state.browser_script = script


def draw_script() -> None:
    """Draw the waiting script, once."""
    if script := st.session_state.pop("browser_script", None):
        # The same script twice would be one element, which has run already.
        st.html(f"<script>{script}// {uuid4()}\n</script>", unsafe_allow_javascript=True)
