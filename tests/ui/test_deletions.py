"""Deleting a chat: the service is asked when the time to undo it is over, whatever happens to the page meanwhile."""

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.client import AgentClient, Refused
from telemetry.testing import Recorded
from tests.processes import ROOT, free_port, until
from tests.service import service
from tests.ui.stack import (
    BEGINNING,
    ENDLESS_STORY,
    PHONE,
    Stack,
    answered,
    button,
    links,
    open_sidebar,
    open_tab,
    say,
    thread_of,
)
from ui.deletions import Deletions

NEVER = 3600


@pytest.fixture
def client(spans: Recorded, tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path) as url:
        yield AgentClient(url, "chatbot", user_id="ada")


def is_there(client: AgentClient, thread_id: str) -> bool:
    try:
        return bool(client.get_history(thread_id).messages)
    except Refused:
        return False


def test_a_thread_is_deleted_when_the_time_is_over(client: AgentClient) -> None:
    """Until then it is named as being deleted; afterwards it is gone, and nothing can be undone."""
    client.invoke("My name is Ada.", thread_id="t-1")
    deletions = Deletions(undo_s=0.2)
    deletions.add(client, "t-1", was_open=False)
    assert deletions.threads("ada") == {"t-1"}
    assert deletions.threads("grace") == frozenset()
    until(lambda: not deletions.threads("ada"))
    assert not is_there(client, "t-1")
    assert deletions.undo("ada", "t-1") is None
    assert deletions.take_error("ada") is None


def test_an_undone_deletion_leaves_the_thread_whole(client: AgentClient) -> None:
    """A second click on the button does not delete it either, nor does the end of the process; others cannot undo."""
    client.invoke("My name is Ada.", thread_id="t-1")
    deletions = Deletions(undo_s=NEVER)
    for was_open in (True, False):
        deletions.add(client, "t-1", was_open=was_open)
    assert deletions.undo("grace", "t-1") is None
    undone = deletions.undo("ada", "t-1")
    assert undone
    assert undone.was_open
    assert deletions.undo("ada", "t-1") is None
    deletions.stop()
    assert is_there(client, "t-1")


def test_the_end_of_the_process_deletes_at_once(client: AgentClient) -> None:
    """Nobody is left to undo it."""
    client.invoke("My name is Ada.", thread_id="t-1")
    deletions = Deletions(undo_s=NEVER)
    deletions.add(client, "t-1", was_open=False)
    deletions.stop()
    assert not is_there(client, "t-1")
    assert deletions.threads("ada") == frozenset()


def test_what_cannot_be_deleted_is_said_once(client: AgentClient) -> None:
    """A thread that is being answered stays, with the service's reason."""
    events = client.stream(ENDLESS_STORY, thread_id="t-1")
    next(events)
    deletions = Deletions(undo_s=0)
    deletions.add(client, "t-1", was_open=False)
    until(lambda: not deletions.threads("ada"))
    assert "t-1" in {thread.thread_id for thread in client.get_threads().threads}
    assert deletions.take_error("grace") is None
    assert deletions.take_error("ada")
    assert deletions.take_error("ada") is None


@pytest.fixture(scope="module")
def patient(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A page that lets everybody undo for an hour: no browser is too slow for it."""
    sources = tmp_path_factory.mktemp("patient")
    shutil.copytree(ROOT / "ui", sources / "ui")
    deletions = sources / "ui" / "deletions.py"
    deletions.write_text(deletions.read_text().replace("UNDO_SECONDS = 10", f"UNDO_SECONDS = {NEVER}"))
    page = replace(stack, folder=sources, page=f"http://127.0.0.1:{free_port()}")
    with page.run_page(sources):
        yield page


def test_a_deletion_is_undone_in_another_tab(patient: Stack, tab: Page, chromium: Browser) -> None:
    """The place in the list says what happens, after a reload and in another tab too, and the chat comes back."""
    chat = tab
    chat.goto(patient.page)
    say(chat, "My name is Grace.")
    answered(chat, 1)
    thread = thread_of(chat)
    undo = f".st-key-undo-{thread} button"
    chat.locator(f".st-key-delete-{thread}").get_by_role("button").click()
    expect(chat.get_by_text("What can I do for you?")).to_be_visible()
    expect(chat.get_by_text("Deleted: My name is Grace.")).to_be_visible()
    expect(chat.locator(undo)).to_be_focused()
    other = open_tab(chromium)
    other.goto(chat.url)
    other.locator(undo).click()
    expect(other.get_by_text("Nice to meet you, Grace.")).to_be_visible()
    expect(other.locator(undo)).to_have_count(0)
    # The first tab sees that by itself.
    expect(chat.locator(undo)).to_have_count(0)
    expect(chat.locator(f".st-key-open-{thread}")).to_be_visible()
    other.close()


def test_a_message_keeps_a_thread_that_is_being_deleted(patient: Stack, tab: Page, chromium: Browser) -> None:
    """A tab that still shows it goes on with it."""
    chat = tab
    chat.goto(patient.page)
    say(chat, "My name is Grace.")
    answered(chat, 1)
    thread = thread_of(chat)
    other = open_tab(chromium)
    other.goto(chat.url)
    answered(other, 1)
    chat.locator(f".st-key-delete-{thread}").get_by_role("button").click()
    expect(chat.locator(f".st-key-undo-{thread}")).to_be_visible()
    say(other, "What is my name?")
    expect(other.get_by_text("Your name is Grace.")).to_be_visible()
    expect(chat.locator(f".st-key-undo-{thread}")).to_have_count(0)
    expect(chat.locator(f".st-key-open-{thread}")).to_be_visible()
    other.close()


def test_a_deletion_is_carried_out_after_its_tab_was_closed(stack: Stack, chromium: Browser) -> None:
    """Nobody has to stay for it."""
    phone = open_tab(chromium, *PHONE)
    phone.goto(stack.page)
    say(phone, "My name is Edsger.")
    answered(phone, 1)
    thread = thread_of(phone)
    open_sidebar(phone)
    phone.locator(f".st-key-delete-{thread}").get_by_role("button").click()
    # The sidebar stays open, so that the button that undoes it is in sight.
    expect(phone.locator(f".st-key-open-{thread}")).to_have_count(0)
    expect(button(phone, "New chat")).to_be_in_viewport()
    client = AgentClient(stack.service)
    phone.close()
    until(lambda: not is_there(client, thread), 60)


def test_a_page_that_is_told_to_end_deletes_at_once(mortal: Stack, tab: Page) -> None:
    """SIGTERM leaves no chat behind that somebody has deleted."""
    with mortal.run_service(), mortal.run_page() as process:
        tab.goto(mortal.page)
        say(tab, "My name is Ada.")
        answered(tab, 1)
        thread = thread_of(tab)
        tab.locator(f".st-key-delete-{thread}").get_by_role("button").click()
        expect(tab.get_by_text("What can I do for you?")).to_be_visible()
        assert process.stop(60) == -signal.SIGTERM
        assert not is_there(AgentClient(mortal.service), thread)


def test_a_chat_that_is_being_answered_is_kept(chat: Page) -> None:
    """The reason is said, and the chat is in the list as before."""
    say(chat, ENDLESS_STORY)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    thread = thread_of(chat)
    chat.locator(f".st-key-delete-{thread}").get_by_role("button").click()
    expect(chat.get_by_test_id("stToast")).to_be_visible()
    chat.locator(f".st-key-open-{thread}").get_by_role("button").click()
    button(chat, "Stop").click()
    expect(links(chat)).to_have_count(1)
