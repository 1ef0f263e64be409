"""Everything here uses names that Streamlit does not document, and says what breaks when they change.

`tests/ui/test_streamlit_patches.py` fails with these sentences, so that an upgrade of Streamlit shows them first.
"""

from collections.abc import Mapping
from functools import cache, wraps
from typing import Any

from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.state.safe_session_state import SafeSessionState

CHAT_INPUT = "stChatInputTextArea"
COLLAPSE_BUTTON = "stSidebarCollapseButton"

# What breaks without each element; `page.css` and `browser.py` name no others.
TEST_IDS: Mapping[str, str] = {
    CHAT_INPUT: "The keyboard no longer returns to the message field after an answer.",
    COLLAPSE_BUTTON: "On a phone the sidebar stays open over the chat that was chosen in it.",
    "stMainBlockContainer": "The page begins with a wide empty margin.",
    "stChatMessage": "Right-to-left text starts on the wrong side, and headings in answers are larger than the page's.",
    "stText": "A right-to-left question starts on the wrong side.",
    "stCaptionContainer": "Links in captions stand out in another colour.",
    "stAppScrollToBottomContainer": "A sent question stays out of sight, and the button to the end is gone.",
    "stBottom": "A sent question stays out of sight, and the button to the end is gone.",
    "stMarkdownContainer": "Buttons that should be icons are as wide as their names.",
    "stSelectbox": "The choices above the message field are as wide as the page.",
    "stSidebar": "On a page from right to left, a closed sidebar lies over the page.",
    "stSidebarHeader": "The sidebar begins with empty space.",
    "stSidebarUserContent": "The sidebar begins with empty space.",
}
CLICKS = (
    "A message that was sent while the page was busy is lost when a click follows it: "
    "SafeSessionState.on_script_will_rerun or its _yield_callback has changed."
)
NAVIGATION = (
    "The browser's back and forward buttons no longer open the thread of their address: "
    "the script context has no is_history_navigation."
)
FRAGMENTS = (
    "A message that was sent while an answer is written may be sent twice: "
    "the script context has no fragment_ids_this_run."
)


@cache
def complete_each_click() -> None:
    """Run the callback of each click to its end, although another click waits.

    Streamlit looks for a newer click whenever a callback touches the session state, and then abandons the callback:
    a message that was sent while the page was busy, and followed by a click, was lost.
    """
    original = SafeSessionState.on_script_will_rerun

    @wraps(original)
    def run_undisturbed(self: SafeSessionState, *args: Any, **kwargs: Any) -> None:
        attributes = vars(self)
        yield_callback = attributes["_yield_callback"]
        attributes["_yield_callback"] = lambda: None
        try:
            original(self, *args, **kwargs)
        finally:
            attributes["_yield_callback"] = yield_callback

    SafeSessionState.on_script_will_rerun = run_undisturbed


def is_history_navigation() -> bool:
    """Return whether this run was caused by the browser's back or forward button."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def is_fragment_run() -> bool:
    """Return whether this run redraws a fragment only."""
    context = get_script_run_ctx()
    return context is not None and bool(context.fragment_ids_this_run)
