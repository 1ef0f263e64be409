"""Asking again and editing: the answer stays as a version, and a person steps between them."""

import os
import re
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page, expect

from app.client import AgentClient
from tests.app.scripted_provider import scripted_provider, text
from tests.ui.stack import (
    BEGINNING,
    ENDLESS_STORY,
    Stack,
    answered,
    button,
    links,
    open_tab,
    say,
    thread_of,
    trace_of,
    tree,
)


def test_a_question_is_edited_and_its_versions_compared(stack: Stack, chat: Page) -> None:
    """What follows an edited question is answered anew; each version has its trace, and the choice stays."""
    say(chat, "My name is Ada.")
    answered(chat, 1)
    say(chat, "What is my name?")
    answered(chat, 2)
    first = trace_of(links(chat).first)
    button(chat, "Edit this message").first.click()
    field = chat.get_by_role("textbox", name="Edited message")
    expect(field).to_have_value("My name is Ada.")
    button(chat, "Cancel").click()
    expect(field).to_have_count(0)
    button(chat, "Edit this message").first.click()
    field.fill("My name is Grace.")
    chat.locator(".st-key-edit-send").get_by_role("button").click()
    expect(chat.get_by_text("Nice to meet you, Grace.")).to_be_visible()
    answered(chat, 1)
    expect(chat.get_by_text("2 / 2")).to_be_visible()
    assert trace_of(links(chat)) != first
    assert tree(links(chat), "SERVER").startswith("chat turn\n")
    say(chat, "What is my name?")
    expect(chat.get_by_text("Your name is Grace.")).to_be_visible()

    button(chat, "Previous version").click()
    expect(chat.get_by_text("Your name is Ada.")).to_be_visible()
    expect(chat.get_by_text("1 / 2")).to_be_visible()
    assert trace_of(links(chat).first) == first
    chat.reload()
    expect(chat.get_by_text("Your name is Ada.")).to_be_visible()
    button(chat, "Next version").click()
    expect(chat.get_by_text("Your name is Grace.")).to_be_visible()


def test_an_answer_is_regenerated(stack: Stack, chat: Page, chromium: Browser) -> None:
    """The new answer takes the place of the old one, in another tab too, and the old one is a click away."""
    say(chat, "What is 6 * 7?")
    answered(chat, 1)
    other = open_tab(chromium)
    other.goto(chat.url)
    answered(other, 1)
    button(chat, "Regenerate").click()
    for each in (chat, other):
        expect(each.get_by_text("2 / 2")).to_be_visible()
        answered(each, 1)
    other.close()
    history = AgentClient(stack.service).get_history(thread_of(chat))
    assert len(history.turns) == 1
    assert len(history.turns[0].versions) == 2


def test_retry_replaces_what_was_stopped(chat: Page) -> None:
    """The stopped answer gives way to the new one, and stays as a version."""
    say(chat, ENDLESS_STORY)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    button(chat, "Stop").click()
    expect(chat.get_by_text("Stopped.", exact=True)).to_be_visible()
    button(chat, "Retry").click()
    expect(chat.get_by_text("Stopped.", exact=True)).to_have_count(0)
    expect(chat.get_by_text(BEGINNING)).to_have_count(1)
    button(chat, "Stop").click()
    expect(chat.get_by_text("2 / 2")).to_be_visible()


def test_a_message_waits_for_the_end_of_an_answer(stack: Stack, chat: Page) -> None:
    """Enter queues it: it is seen, can be taken out, and is sent once the answer is over."""
    say(chat, ENDLESS_STORY)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    line = chat.get_by_test_id("stChatInputTextArea")
    for message in ("What is 6 * 7?", "What is 2 * 3?"):
        line.fill(message)
        line.press("Enter")
        expect(chat.get_by_text(f"Next: {message}")).to_be_visible()
    button(chat, "Do not send What is 2 * 3?").click()
    expect(chat.get_by_text("Next: What is 2 * 3?")).to_have_count(0)
    stack.end_answer(thread_of(chat))
    answered(chat, 2)
    expect(chat.get_by_text("The calculator tool says: 42")).to_be_visible()
    expect(chat.get_by_text("Next: ")).to_have_count(0)


def test_a_draft_stays_with_its_thread(chat: Page) -> None:
    """What was typed is there again when the thread is opened again, and nowhere else."""
    say(chat, "My name is Emmy.")
    answered(chat, 1)
    old = thread_of(chat)
    line = chat.get_by_test_id("stChatInputTextArea")
    line.fill("What is")
    button(chat, "New chat").click()
    expect(links(chat)).to_have_count(0)
    expect(line).to_have_value("")
    line.fill("Something else")
    chat.locator(f".st-key-open-{old}").get_by_role("button").click()
    expect(links(chat)).to_have_count(1)
    expect(line).to_have_value("What is")
    chat.reload()
    expect(line).to_have_value("What is")
    line.press_sequentially(" my name?")
    line.press("Enter")
    expect(chat.get_by_text("Your name is Emmy.")).to_be_visible()
    expect(line).to_have_value("")
    chat.reload()
    answered(chat, 2)
    expect(line).to_have_value("")


def test_the_steps_of_an_answer_are_a_fold(chat: Page) -> None:
    """The tree has names, times and tokens, after a reload too."""
    say(chat, "What is 6 * 7?")
    answered(chat, 1)
    for _ in range(2):
        chat.get_by_text("Steps", exact=True).click()
        steps = chat.locator(".spans li")
        expect(steps.first).to_contain_text(re.compile(r"turn AGENT.*s$"))
        expect(steps.filter(has_text="calculator TOOL")).to_have_count(1)
        expect(steps.filter(has_text="tokens").first).to_be_visible()
        chat.reload()
        answered(chat, 1)


def test_an_answer_elsewhere_is_marked_until_it_is_seen(stack: Stack, chat: Page) -> None:
    """A thread is marked while it is answered, and afterwards until it is opened."""
    say(chat, ENDLESS_STORY)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    old = thread_of(chat)
    button(chat, "New chat").click()
    marked = chat.locator(f".st-key-open-{old}")
    expect(marked.get_by_text("progress_activity").first).to_be_visible()
    stack.end_answer(old)
    expect(marked.get_by_text("mark_chat_unread").first).to_be_visible()
    marked.get_by_role("button").click()
    expect(links(chat)).to_have_count(1)
    expect(marked.get_by_text("mark_chat_unread")).to_have_count(0)


def test_the_link_of_a_thread_is_copied(chat: Page) -> None:
    """It leads to the thread."""
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"])
    say(chat, "My name is Ida.")
    answered(chat, 1)
    button(chat, "More about this chat").click()
    button(chat, "Copy link").click()
    expect(button(chat, "Copied")).to_be_visible()
    link = chat.evaluate("navigator.clipboard.readText()")
    chat.goto("about:blank")
    chat.goto(link)
    expect(chat.get_by_text("Nice to meet you, Ida.")).to_be_visible()


def test_an_answer_that_was_cut_is_continued(mortal: Stack, tab: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model reached its length limit, one click asks for the rest; then there is nothing to continue."""
    with scripted_provider(monkeypatch) as provider:
        provider.script = [text("Once upon", "length"), text("a time.")]
        keys = {name: os.environ[name] for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL")}
        stack = replace(mortal, settings={"MODEL": "openai:gpt-scripted", **keys})
        with stack.run_service(), stack.run_page():
            tab.goto(stack.page)
            say(tab, "Tell me a story")
            answered(tab, 1)
            button(tab, "Continue").click()
            expect(tab.get_by_text("a time.")).to_be_visible()
            answered(tab, 2)
            expect(button(tab, "Continue")).to_have_count(0)
    asked = [message["role"] for message in provider.requests[-1]["messages"]]
    assert asked[-3:] == ["user", "assistant", "user"]
