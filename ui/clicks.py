"""Every click counts, also one that another follows at once."""

from functools import cache, wraps
from typing import Any

from streamlit.runtime.state.safe_session_state import SafeSessionState


@cache
def count_every_click() -> None:
    """From now on what a click asks for is done to its end though another click waits.

    Streamlit looks for a newer click whenever the session's state is touched, and then leaves what the older one asked
    for: a message that was sent while the page was busy, and followed by a click, was gone.
    """
    begin = SafeSessionState.on_script_will_rerun

    @wraps(begin)
    def undisturbed(self: SafeSessionState, *args: Any, **kwargs: Any) -> None:
        held = vars(self)
        look = held["_yield_callback"]
        held["_yield_callback"] = lambda: None
        try:
            begin(self, *args, **kwargs)
        finally:
            held["_yield_callback"] = look

    SafeSessionState.on_script_will_rerun = undisturbed
