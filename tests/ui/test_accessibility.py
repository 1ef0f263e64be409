"""What axe-core, the checker of web pages, finds on the pages of the chat, light and dark."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.ui.stack import BEGINNING, ENDLESS_STORY, PHONE, Stack, answered, button, open_sidebar, say, settled

# Findings in elements that Streamlit draws and no option of its changes.
STREAMLIT = {
    "scrollable-region-focusable": "the sidebar scrolls, and its contents have the focus",
}


@pytest.fixture(params=["light", "dark"])
def themed(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    tab = chromium.new_page(color_scheme=request.param, viewport={"width": 1280, "height": 800})
    tab.set_default_timeout(60_000)
    yield tab
    tab.close()


def findings(tab: Page) -> list[str]:
    """Each finding: the rule, and where the page breaks it."""
    if not button(tab, "Stop").count():
        settled(tab)  # what is being drawn anew is pale
    tab.wait_for_timeout(500)  # colours fade in
    violations = cast("list[dict[str, Any]]", Axe().run(tab).response["violations"])
    return [
        f"{violation['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for violation in violations
        if violation["id"] not in STREAMLIT
        for node in violation["nodes"]
    ]


def test_axe_finds_nothing(stack: Stack, themed: Page) -> None:
    """The empty page, an answer with its tools and steps, an editor, a running answer, an error and a question."""
    themed.goto(stack.page)
    expect(themed.locator(".st-key-starters")).to_be_visible()
    assert findings(themed) == []
    say(themed, "What is 6 * 7?")
    answered(themed, 1)
    themed.get_by_text("Used calculator").click()
    themed.get_by_text("Steps", exact=True).click()
    expect(themed.locator(".spans li").first).to_be_visible()
    assert findings(themed) == []
    button(themed, "Edit this message").click()
    expect(themed.get_by_role("textbox", name="Edited message")).to_be_visible()
    assert findings(themed) == []
    button(themed, "Cancel").click()
    button(themed, "Regenerate").click()
    expect(themed.get_by_text("2 / 2")).to_be_visible()
    say(themed, ENDLESS_STORY)
    expect(themed.get_by_text(BEGINNING)).to_be_visible()
    assert findings(themed) == []
    button(themed, "Stop").click()
    answered(themed, 2)
    say(themed, "/fail")
    expect(themed.get_by_test_id("stAlert")).to_be_visible()
    assert findings(themed) == []
    themed.goto(f"{stack.page}/?agent=interrupt")
    say(themed, "Book a table for 4 at 19:30")
    expect(button(themed, "Approve")).to_be_visible()
    assert findings(themed) == []


def test_axe_finds_nothing_on_a_phone(stack: Stack, chromium: Browser) -> None:
    """With the sidebar closed and open."""
    phone = chromium.new_page(viewport={"width": PHONE[0], "height": PHONE[1]}, has_touch=True)
    phone.set_default_timeout(60_000)
    phone.goto(stack.page)
    say(phone, "My name is Ada.")
    answered(phone, 1)
    assert findings(phone) == []
    open_sidebar(phone)
    assert findings(phone) == []
    small = phone.evaluate(
        """() => [...document.querySelectorAll('button, a[href], input, textarea, [role=radio], summary')]
            .map((element) => [element, element.getBoundingClientRect()])
            .filter(([element, box]) => box.width && box.height && (box.width < 24 || box.height < 24))
            .filter(([element]) => getComputedStyle(element).opacity !== '0' && !element.closest('label'))
            // It is as large as its text once it has the focus.
            .filter(([element]) => element.dataset.testid !== 'stSkipToContent')
            .map(([element]) => element.outerHTML.slice(0, 160))"""
    )
    assert small == []
    phone.close()
