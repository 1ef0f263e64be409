"""The first minute and the reading: starters, where a question and its answer are seen, and what an outage leaves."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

from app.agents import AGENTS
from app.client import AgentClient
from tests.processes import until
from tests.ui.stack import BEGINNING, ENDLESS_STORY, PHONE, Stack, answered, button, links, open_tab, say, thread_of
from ui.texts import LANGUAGE

SIZES = [(1280, 640), PHONE]
END = "To the end"


@pytest.fixture(params=SIZES, ids=["desktop", "phone"])
def sized(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    tab = open_tab(chromium, *request.param)
    yield tab
    tab.close()


def top_of(tab: Page, text: str) -> float:
    box = tab.get_by_test_id("stMainBlockContainer").get_by_text(text).last.bounding_box()
    assert box
    return box["y"]


def scroll_up(tab: Page) -> None:
    tab.get_by_test_id("stMainBlockContainer").hover()
    tab.mouse.wheel(0, -20_000)


def test_an_agent_is_chosen_by_its_title(stack: Stack, tab: Page) -> None:
    """The list shows titles, the address has the key, and an unknown key is ignored."""
    tab.goto(f"{stack.page}/?agent=nobody")
    tab.get_by_role("combobox", name="Agent").click()
    titles = [agent.title or "" for agent in AGENTS.values()]
    expect(tab.get_by_role("option")).to_have_text(titles)
    tab.get_by_role("option", name="Table booking").click()
    expect(tab.get_by_text("Books a table, once you agree.")).to_be_visible()
    assert "agent=interrupt" in tab.url
    tab.reload()
    expect(tab.get_by_text("Books a table, once you agree.")).to_be_visible()


def test_a_starter_is_sent_by_a_click(sized: Page, stack: Stack) -> None:
    """An empty chat offers messages as cards, side by side where there is room, and a click gets an answer."""
    sized.goto(f"{stack.page}/?agent=supervisor")
    cards = sized.locator(".st-key-starters").get_by_role("button")
    expect(cards).to_have_text(list(AGENTS["supervisor"].starters))
    expect(sized.get_by_text("The demo model follows a few rules")).to_be_visible()
    first, second = cards.nth(0).bounding_box(), cards.nth(1).bounding_box()
    assert first
    assert second
    assert (first["y"] == second["y"]) == (sized.viewport_size != {"width": PHONE[0], "height": PHONE[1]})
    cards.first.click()
    answered(sized, 1)
    expect(sized.get_by_text("42").last).to_be_visible()
    expect(cards).to_have_count(0)


def test_the_sidebar_begins_at_the_top(chat: Page) -> None:
    """No empty space is above its title."""
    title = chat.get_by_test_id("stSidebar").get_by_role("heading", name="Agent chat")
    # The page's style comes with its first drawing.
    until(lambda: (box := title.bounding_box()) and box["y"] < 60)


def test_a_question_sent_while_scrolled_up_is_seen(sized: Page, stack: Stack) -> None:
    """It goes to the top of the page, its answer grows below it, and both stay where they are."""
    sized.goto(stack.page)
    say(sized, "Tell me a story of 400 words")
    answered(sized, 1)
    scroll_up(sized)
    expect(button(sized, END)).to_be_visible()
    say(sized, ENDLESS_STORY)
    expect(sized.get_by_test_id("stMainBlockContainer").get_by_text(ENDLESS_STORY)).to_be_in_viewport()
    expect(sized.get_by_text(BEGINNING).last).to_be_in_viewport()
    before = top_of(sized, ENDLESS_STORY)
    assert 0 < before < 120
    expect(button(sized, END)).to_be_visible(timeout=120_000)
    assert top_of(sized, ENDLESS_STORY) == pytest.approx(before, abs=5)
    button(sized, END).click()
    expect(button(sized, "Stop")).to_be_in_viewport()
    expect(button(sized, END)).to_be_hidden()
    button(sized, "Stop").click()
    answered(sized, 2)


def test_an_answer_is_announced(chat: Page) -> None:
    """A screen reader is told when an answer begins and how it ends, and nothing when a chat is opened."""
    status = chat.locator(".reader-status")
    expect(status).to_have_role("status")
    expect(status).to_have_text("")
    say(chat, ENDLESS_STORY)
    expect(status).to_have_text("The answer is being written.")
    button(chat, "Stop").click()
    expect(status).to_have_text("The answer was stopped.")
    say(chat, "My name is Ada.")
    expect(status).to_have_text("The answer is complete.")
    chat.reload()
    answered(chat, 2)
    expect(status).to_have_text("")


def test_the_page_names_its_language(chat: Page) -> None:
    """Screen readers read it in the language of its texts, whatever Streamlit's own page says."""
    chat.evaluate("document.documentElement.lang = 'xx'")
    say(chat, "My name is Ada.")
    expect(chat.locator("html")).to_have_attribute("lang", LANGUAGE)


def test_the_page_stays_while_the_service_is_away(mortal: Stack, tab: Page) -> None:
    """Conversation, list and draft stay below a line that says so; it recovers by itself."""
    with mortal.run_page(), ExitStack() as services:
        service = services.enter_context(mortal.run_service())
        tab.goto(mortal.page)
        say(tab, "My name is Ada.")
        answered(tab, 1)
        tab.get_by_test_id("stChatInputTextArea").fill("What is my na")
        service.popen.kill()
        service.popen.wait()
        expect(tab.get_by_text("Reconnecting")).to_be_visible()
        expect(tab.get_by_text("Nice to meet you, Ada.")).to_be_visible()
        thread = tab.locator(".st-key-chats").get_by_role("button", name="My name is Ada.", exact=True)
        expect(thread).to_be_visible()
        button(tab, "New chat").click()
        expect(tab.get_by_text("What can I do for you?")).to_be_visible()
        expect(tab.get_by_text("Reconnecting")).to_be_visible()
        thread.click()
        tab.get_by_test_id("stChatInputTextArea").fill("What is my na")

        services.enter_context(mortal.run_service())
        expect(tab.get_by_text("Reconnecting")).to_have_count(0)
        expect(tab.get_by_text("Nice to meet you, Ada.")).to_be_visible()
        expect(tab.get_by_test_id("stChatInputTextArea")).to_have_value("What is my na")
        say(tab, "What is my name?")
        expect(tab.get_by_text("Your name is Ada.")).to_be_visible()
        answered(tab, 2)
        assert AgentClient(mortal.service).get_history(thread_of(tab)).messages


def test_a_followed_background_run_says_that_the_service_is_away(mortal: Stack, tab: Page) -> None:
    """The line is there for as long as it lasts, and then the run goes on."""
    with mortal.run_page(), ExitStack() as services:
        service = services.enter_context(mortal.run_service())
        tab.goto(f"{mortal.page}/?agent=bg-task")
        tab.get_by_text("Answer in the background").click()
        say(tab, "work for 600 seconds")
        expect(tab.get_by_test_id("stProgress")).to_contain_text("of 2400")
        service.popen.kill()
        service.popen.wait()
        expect(tab.get_by_text("Reconnecting")).to_be_visible()
        expect(tab.get_by_test_id("stProgress")).to_contain_text("of 2400")

        services.enter_context(mortal.run_service())
        expect(tab.get_by_text("Reconnecting")).to_have_count(0)
        button(tab, "Cancel").click()
        expect(tab.get_by_text("Stopped.", exact=True)).to_be_visible()


def test_a_page_opened_while_the_service_is_away_comes_by_itself(mortal: Stack, tab: Page) -> None:
    """It says how to start the service, and is there once somebody has."""
    with mortal.run_page():
        tab.goto(mortal.page)
        expect(tab.get_by_text("Start it with")).to_be_visible()
        with mortal.run_service():
            expect(tab.get_by_text("What can I do for you?")).to_be_visible()
            expect(links(tab)).to_have_count(0)
