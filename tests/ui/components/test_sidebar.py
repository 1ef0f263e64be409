"""The list of chats: by day, found by title, and taken elsewhere."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Download, Page, expect

from tests.ui.stack import answered, button, say, settled
from ui.components.sidebar import day_of


@pytest.mark.parametrize(
    ("ago", "timezone", "day"),
    [
        (timedelta(0), "UTC", "Today"),
        (timedelta(days=1), "UTC", "Yesterday"),
        (timedelta(days=2), None, "Earlier"),
        (timedelta(days=400), "Asia/Tokyo", "Earlier"),
        (timedelta(minutes=-5), "no/where", "Today"),
    ],
)
def test_a_day_has_a_name(ago: timedelta, timezone: str | None, day: str) -> None:
    """Today, yesterday or earlier, and a clock that is ahead is today."""
    noon = datetime.now(UTC).replace(hour=12)
    assert day_of(noon - ago, timezone) == day


def downloaded(chat: Page, name: str) -> Download:
    """The file behind a button."""
    settled(chat)
    with chat.expect_download() as download:
        button(chat, name).click()
    return download.value


def test_a_chat_is_found_exported_and_renamed(chat: Page) -> None:
    """What was said finds it, it gets another title, and its messages can be taken elsewhere."""
    say(chat, "What is 6 * 7, dear Hypatia?")
    answered(chat, 1)
    chats = chat.locator(".st-key-chats")
    expect(chats.get_by_text("Today")).to_be_visible()
    search = chat.get_by_role("textbox", name="Search chats")
    search.fill("no such title")
    search.press("Enter")
    expect(chat.get_by_text("These words were said in no chat.")).to_be_visible()
    search.fill("hypatia")
    search.press("Enter")
    expect(chats.get_by_role("button", name="What is 6 * 7, dear Hypatia?", exact=True)).to_have_count(1)

    search.fill("the CALCULATOR tool says: 42")
    search.press("Enter")
    expect(chats.get_by_role("button", name="What is 6 * 7, dear Hypatia?", exact=True).first).to_be_visible()
    search.fill("")
    search.press("Enter")
    chat.reload()
    answered(chat, 1)
    button(chat, "More about this chat").click()
    text = downloaded(chat, "Markdown").path().read_text()
    assert text.startswith("# What is 6 * 7, dear Hypatia?\n\n**You:** What is 6 * 7, dear Hypatia?\n\n**Agent:**")
    assert "42" in text
    exported = downloaded(chat, "JSON")
    assert json.loads(exported.path().read_text())["messages"][0]["type"] == "human"
    assert exported.suggested_filename == "What-is-6-7-dear-Hypatia.json"
    title = chat.get_by_role("textbox", name="Title")
    title.fill("Sums of Hypatia")
    title.press("Enter")
    expect(chats.get_by_role("button", name="Sums of Hypatia", exact=True)).to_be_visible()
    chat.keyboard.press("Escape")
