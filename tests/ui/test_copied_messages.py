"""Streamlit's browser may send what was just entered twice: with the redraw of a fragment, and by itself."""

import re
from pathlib import Path

from playwright.sync_api import Page, WebSocketRoute, expect
from streamlit.proto.BackMsg_pb2 import BackMsg

from tests.ui.stack import BEGINNING, ENDLESS_STORY, Stack, button, say


class CopyingBrowser:
    """Sends a message ahead as part of a fragment's redraw, as Streamlit does by chance."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._fragment = ""
        self.copies = 0

    def connect(self, browser: WebSocketRoute) -> None:
        self._page = browser.connect_to_server()
        browser.on_message(self._pass_on)

    def _pass_on(self, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        sent = BackMsg.FromString(message)
        self._fragment = sent.rerun_script.fragment_id or self._fragment
        entered = [widget.chat_input_value.data for widget in sent.rerun_script.widget_states.widgets]
        if self._text in entered and not sent.rerun_script.fragment_id:
            sent.rerun_script.fragment_id = self._fragment
            self._page.send(sent.SerializeToString())
            self.copies += 1
        self._page.send(message)


def test_a_message_that_the_browser_sends_twice_is_one(stack: Stack, tab: Page, tmp_path: Path) -> None:
    """It is queued once, with its file."""
    notes = tmp_path / "notes.txt"
    notes.write_text("The river is long.")
    copying = CopyingBrowser("Please read the file notes.txt")
    tab.route_web_socket(re.compile("/_stcore/stream"), copying.connect)
    tab.goto(stack.page)
    say(tab, ENDLESS_STORY)
    expect(tab.get_by_text(BEGINNING)).to_be_visible()
    say(tab, "Please read the file notes.txt", notes)
    expect(tab.get_by_text("Next: Please read the file notes.txt")).to_be_visible()
    assert copying.copies == 1
    button(tab, "Stop").click()
    expect(tab.get_by_text("The river is long.").last).to_be_visible()
    expect(tab.get_by_text("Next: ")).to_have_count(0)
