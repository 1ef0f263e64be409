"""A button that copies text; Streamlit has one for code only."""

from pathlib import Path

from streamlit.components.v2 import component

from ui import texts

_FOLDER = Path(__file__).parent

_mount = component(
    "agent_chat.copy_button",
    html=(_FOLDER / "copy_button.html").read_text(),
    css=(_FOLDER / "copy_button.css").read_text(),
    js=(_FOLDER / "copy_button.js").read_text(),
)


def draw_copy_button(text: str, *, key: str, label: str = texts.COPY) -> None:
    """Draw a button that copies this text."""
    words = {"label": label, "copied": texts.COPIED, "failed": texts.NOT_COPIED}
    _mount(key=key, data={"text": text, **words}, width="content", height="content")
