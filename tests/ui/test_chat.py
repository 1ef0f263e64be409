"""The chat in a real browser: it streams, survives reloads and restarts, and leads to the trace."""

import signal

import httpx
import pytest
from playwright.sync_api import Page, expect

from app.client import AgentClient
from tests.processes import until
from tests.ui.stack import BEGINNING, ENDLESS_STORY, Stack, button, links, say, thread_of, tree
from ui.components.sidebar import REFRESH_SECONDS


def test_an_answer_is_seen_while_it_is_written_and_survives_reloads(chat: Page) -> None:
    """Words appear before the end, a reload in between goes on watching, and one after it shows the same link."""
    # Long enough for a reload of a busy machine.
    story = "Tell me a story of 300 words"
    say(chat, story)
    answer = chat.get_by_text(BEGINNING)
    expect(answer).to_be_visible()
    expect(button(chat, "Stop")).to_be_visible()
    early = answer.inner_text()

    chat.reload()
    expect(button(chat, "Stop")).to_be_visible()
    expect(links(chat)).to_have_count(1, timeout=120_000)
    expect(button(chat, "Stop")).to_have_count(0)
    complete = answer.inner_text()
    assert complete.startswith(early)
    assert len(complete) > len(early)
    expect(chat.get_by_test_id("stMainBlockContainer").get_by_text(story)).to_have_count(1)
    link = links(chat).get_attribute("href")

    chat.reload()
    expect(links(chat)).to_have_count(1)
    assert links(chat).get_attribute("href") == link
    assert answer.inner_text() == complete


def test_the_link_leads_to_the_whole_trace(chat: Page) -> None:
    """One message with a tool is one tree whose root is the page's, shown by the viewer in the browser."""
    say(chat, "What is 6 * 7?")
    expect(links(chat)).to_have_count(1)
    assert tree(links(chat), "chat turn", "SERVER", "calculator TOOL").startswith("chat turn\n")
    chat.goto(links(chat).get_attribute("href") or "")
    expect(chat.get_by_text("calculator").first).to_be_visible()


def test_a_tool_unfolds(chat: Page) -> None:
    """A tool's input and output are folded away until asked for."""
    say(chat, "What is 6 * 7?")
    expect(links(chat)).to_have_count(1)
    expect(chat.get_by_text('"expression"')).not_to_be_visible()
    chat.get_by_text("Used calculator").click()
    expect(chat.get_by_text('"expression"')).to_be_visible()


def test_stop_keeps_what_was_said(chat: Page) -> None:
    """Stop ends the answer soon, keeps its words, and is no error in the trace."""
    say(chat, ENDLESS_STORY)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    button(chat, "Stop").click()
    expect(chat.get_by_text("Stopped.", exact=True)).to_be_visible()
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    assert "ERROR" not in tree(links(chat), "chat turn", "LLM")


def test_a_service_that_dies_is_told_in_words_and_may_come_back(mortal: Stack, tab: Page) -> None:
    """A dead service leaves a sentence beside what was said; the thread goes on by itself when it is back."""
    with mortal.run_page():
        with mortal.run_service() as service:
            tab.goto(mortal.page)
            say(tab, "My name is Ada.")
            expect(links(tab)).to_have_count(1)
            say(tab, ENDLESS_STORY)
            expect(tab.get_by_text(BEGINNING)).to_be_visible()
            service.popen.kill()
            expect(tab.get_by_text(f"No agent service answers at {mortal.service}")).to_be_visible()
        with mortal.run_service():
            expect(tab.get_by_text("was interrupted before the answer was complete")).to_be_visible()
            say(tab, "What is my name?")
            expect(tab.get_by_text("Your name is Ada")).to_be_visible()
            expect(links(tab)).to_have_count(3)
            assert tree(links(tab).nth(1), "chat turn").startswith("chat turn ERROR")


@pytest.mark.chaos
def test_a_list_of_runs_outlives_the_service(mortal: Stack, tab: Page) -> None:
    """While nobody can say how a run stands, the list shows it as it stood, and the page draws nothing broken."""
    listed = tab.locator(".st-key-runs").get_by_text("work for 600 seconds").first
    with mortal.run_page():
        with mortal.run_service() as service:
            tab.goto(f"{mortal.page}/?agent=bg-task&background=true")
            say(tab, "work for 600 seconds")
            expect(listed).to_be_visible()
            expect(tab.get_by_test_id("stProgress")).to_be_visible()
            service.popen.kill()
            service.popen.wait()
            tab.wait_for_timeout(3_000 * REFRESH_SECONDS)
        expect(listed).to_be_visible()
        expect(tab.get_by_test_id("stException")).to_have_count(0)


def test_a_page_that_is_told_to_end_ends_its_turns(mortal: Stack, tab: Page) -> None:
    """SIGTERM stops the running turn and ends its span: the trace has its root."""
    with mortal.run_service(), mortal.run_page() as process:
        tab.goto(mortal.page)
        say(tab, ENDLESS_STORY)
        expect(tab.get_by_text(BEGINNING)).to_be_visible()
        thread_id = thread_of(tab)
        assert process.stop(60) == -signal.SIGTERM

        history = AgentClient(mortal.service).get_history(thread_id)
        (url,) = history.trace_urls.values()
        until(lambda: httpx.get(f"{url}.txt", trust_env=False, timeout=60).text.startswith("chat turn"))
        assert history.messages[-1].response_metadata["finish_reason"] == "stopped"
