"""The names of Streamlit that it does not document, so that an upgrade says what it breaks."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.runtime.scriptrunner_utils.script_run_context import ScriptRunContext
from streamlit.runtime.state.safe_session_state import SafeSessionState
from streamlit.runtime.state.session_state import SessionState

from tests.processes import ROOT
from tests.ui.stack import PHONE, Stack, answered, open_sidebar, open_tab, say
from ui.streamlit_patches import CLICKS, FRAGMENTS, NAVIGATION, TEST_IDS, complete_each_click

NAMED = re.compile(r'data-testid="?\{?([\w]+)')


def test_a_click_is_completed_by_names_that_exist() -> None:
    """The callback of a click is not abandoned for the next one, by way of a method and an attribute of Streamlit."""
    complete_each_click()
    looks: list[str] = []
    called: list[str] = []

    class Callbacks(SessionState):
        """Touches the state as the callback of a click does."""

        def on_script_will_rerun(self, *_: Any, **__: Any) -> None:
            called.append(state["message"])

    state = SafeSessionState(Callbacks(), lambda: looks.append("look"))
    assert "_yield_callback" in vars(state), CLICKS
    state["message"] = "typed"
    assert looks, CLICKS

    looks.clear()
    state.on_script_will_rerun(WidgetStates())
    assert (called, looks) == (["typed"], []), CLICKS
    _ = state["message"]
    assert looks, CLICKS


def test_history_navigation_has_a_name() -> None:
    """The script's context says whether the browser's back or forward button was used."""
    assert "is_history_navigation" in ScriptRunContext.__dataclass_fields__, NAVIGATION


def test_the_run_of_a_fragment_has_a_name() -> None:
    """The script's context says which fragments a run redraws."""
    assert "fragment_ids_this_run" in ScriptRunContext.__dataclass_fields__, FRAGMENTS


def test_no_other_element_is_named() -> None:
    """Style sheet and scripts use only the elements whose loss has a sentence."""
    for path in (ROOT / "ui").rglob("*"):
        if path.suffix in (".py", ".css", ".js"):
            names = set(NAMED.findall(path.read_text())) - {"CHAT_INPUT", "COLLAPSE_BUTTON"}
            assert names <= set(TEST_IDS), path


@pytest.fixture(scope="module")
def drawn(stack: Stack, chromium: Browser) -> Iterator[Page]:
    """A phone with an answer and the sidebar open."""
    phone = open_tab(chromium, *PHONE)
    phone.goto(stack.page)
    say(phone, "My name is Ada.")
    answered(phone, 1)
    open_sidebar(phone)
    yield phone
    phone.close()


@pytest.mark.parametrize("test_id", TEST_IDS)
def test_an_element_is_on_the_page(drawn: Page, test_id: str) -> None:
    """What the style sheet and the scripts look for is found by its name."""
    expect(drawn.get_by_test_id(test_id).first, TEST_IDS[test_id]).to_be_attached(timeout=5_000)
