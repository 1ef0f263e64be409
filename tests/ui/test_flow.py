"""From the first click to the viewer: what people do in the chat, and what it leaves in traces and scores."""

import re
import signal
import wave
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.client import AgentClient
from tests.processes import until
from tests.ui.line import Line
from tests.ui.stack import (
    BEGINNING,
    ENDLESS_STORY,
    PHONE,
    THANKED,
    Stack,
    answered,
    button,
    links,
    open_sidebar,
    open_tab,
    say,
    thread_of,
    trace_of,
    tree,
)


def test_chat_tool_file_interrupt_feedback(stack: Stack, chat: Page, tmp_path: Path) -> None:
    """A tool, a file, a question and a vote: each is seen in the chat, after a reload, and in the viewer."""
    notes = tmp_path / "notes.txt"
    notes.write_text("The river is long.")
    say(chat, "What is 6 * 7?")
    answered(chat, 1)
    say(chat, "Please read the file notes.txt", notes)
    answered(chat, 2)
    expect(chat.get_by_text("The river is long.").last).to_be_visible()
    first, second = (links(chat).nth(place) for place in (0, 1))
    assert "calculator TOOL" in tree(first, "chat turn", "SERVER", "calculator TOOL")
    assert tree(second, "upload file", "read_file TOOL").startswith("chat turn\n")

    chat.get_by_role("radio", name="Thumbs up").first.click()
    expect(chat.get_by_text(THANKED)).to_be_visible()
    comment(chat, "Right.")
    expect(chat.get_by_label("What was good or wrong?")).to_be_hidden()
    expect(chat.get_by_text(THANKED)).to_be_visible()
    until(lambda: [score.get("comment") for score in stack.scores(trace_of(first))] == ["Right."], 60)
    thread = thread_of(chat)

    chat.reload()
    answered(chat, 2)
    expect(chat.get_by_role("radio").first).to_be_checked()
    expect(button(chat, "notes.txt")).to_have_count(2)
    figures = chat.get_by_text("tokens in")
    expect(figures).to_have_count(2)
    assert "$" in figures.first.inner_text()
    assert "first word after" in figures.first.inner_text()
    until(lambda: {"page_load", "file_upload", "feedback"} <= set(stack.names(thread)), 60)
    until(lambda: stack.names(thread).count("page_load") > 1, 60)  # that of the reload may come later than its page
    names = stack.names(thread)
    assert [names.count(name) for name in ("page_load", "file_upload", "upload file")] == [2, 1, 1]

    chat.goto(f"{stack.page}/?agent=interrupt")
    say(chat, "Book a table for 4 at 19:30")
    expect(chat.get_by_text("Shall I book")).to_be_visible()
    chat.reload()
    button(chat, "Approve").click()
    expect(chat.get_by_text("Booked a table for 4 at 19:30.")).to_be_visible()
    answered(chat, 2)
    expect(button(chat, "Approve")).to_have_count(0)
    tree(links(chat).first, "book_table TOOL")
    tree(links(chat).last, "book_table TOOL")


def comment(chat: Page, words: str) -> None:
    button(chat, "Comment").click()
    field = chat.get_by_label("What was good or wrong?")
    field.fill(words)
    field.press("Control+Enter")
    chat.get_by_role("button", name="Send", exact=True).click()


def test_a_vote_can_be_changed_and_taken_back(stack: Stack, chat: Page) -> None:
    """The score in the viewer follows the thumbs, which stand as they were left after each reload."""
    up, down = (chat.get_by_role("radio", name=f"Thumbs {which}") for which in ("up", "down"))
    say(chat, "My name is Ada.")
    answered(chat, 1)
    trace_id = trace_of(links(chat))

    down.click()
    until(lambda: [score["value"] for score in stack.scores(trace_id)] == [False], 60)
    chat.reload()
    expect(down).to_be_checked()
    up.click()
    expect(chat.get_by_text(THANKED)).to_be_visible()
    until(lambda: [score["value"] for score in stack.scores(trace_id)] == [True], 60)
    up.click()
    # A deletion is told of as done once the backend no longer has the score: it may have come before what it deletes.
    expect(chat.get_by_text("Taken back: queued, it will be sent")).to_be_visible()
    until(lambda: stack.scores(trace_id) == [], 60)
    chat.reload()
    answered(chat, 1)
    expect(up).not_to_be_checked()


def test_a_comment_sent_before_the_page_caught_up_closes_its_box(mortal: Stack, tab: Page) -> None:
    """Opened, written and sent while the page waits for the service: the box closes, and the comment arrives."""
    with mortal.run_service() as service, mortal.run_page():
        tab.goto(mortal.page)
        say(tab, "My name is Ada.")
        answered(tab, 1)
        tab.get_by_role("radio", name="Thumbs up").click()
        expect(tab.get_by_text(THANKED)).to_be_visible()
        service.popen.send_signal(signal.SIGSTOP)
        tab.get_by_role("radio", name="Thumbs down").click()
        comment(tab, "Wrong.")
        service.popen.send_signal(signal.SIGCONT)
        expect(tab.get_by_label("What was good or wrong?")).to_be_hidden()
        trace_id = trace_of(links(tab))
        until(lambda: [score.get("comment") for score in mortal.scores(trace_id)] == ["Wrong."], 60)


@pytest.mark.chaos
def test_a_message_counts_though_a_click_follows_at_once(mortal: Stack, tab: Page) -> None:
    """What a person sent while the page was busy is answered, also where something else was clicked right after it."""
    with mortal.run_service(), mortal.run_page() as process:
        tab.goto(mortal.page)
        for times in range(1, 7):
            expect(tab.get_by_test_id("stChatInputTextArea")).to_be_enabled()
            process.popen.send_signal(signal.SIGSTOP)
            say(tab, "What is 6 * 7?")
            tab.get_by_text("Answer in the background").click()
            process.popen.send_signal(signal.SIGCONT)
            answered(tab, times)


def test_what_was_stopped_or_failed_can_be_tried_again(stack: Stack, chat: Page) -> None:
    """A stopped answer stands with link, thumbs and a retry; an error is told with its trace, after a reload too."""
    say(chat, ENDLESS_STORY)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    button(chat, "Stop").click()
    answered(chat, 1)
    expect(chat.get_by_text("Stopped.", exact=True)).to_be_visible()
    chat.reload()
    expect(chat.get_by_text("Stopped.", exact=True)).to_be_visible()
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    expect(chat.get_by_role("radio")).to_have_count(2)
    button(chat, "Retry").click()
    expect(button(chat, "Stop")).to_be_visible()
    button(chat, "Stop").click()
    expect(chat.get_by_text("2 / 2")).to_be_visible()
    answered(chat, 1)
    until(lambda: stack.names(thread_of(chat)).count("stop") == 2, 60)

    say(chat, "/fail")
    expect(chat.get_by_test_id("stAlert")).to_be_visible()
    answered(chat, 2)
    chat.reload()
    answered(chat, 2)
    expect(chat.get_by_test_id("stAlert")).to_contain_text("DemoError")
    expect(chat.get_by_text(f"Trace {trace_of(links(chat).last)}")).to_be_visible()
    button(chat, "Retry").click()
    expect(chat.get_by_text("2 / 2")).to_have_count(2)
    answered(chat, 2)
    assert tree(links(chat).last, "DemoModel LLM ERROR").startswith("chat turn ERROR\n")


def test_a_refused_file_is_told_in_words(chat: Page, tmp_path: Path) -> None:
    """What the service does not take is said, the message waits, and goes without it on request."""
    program = tmp_path / "tool.exe"
    program.write_bytes(b"MZ" + bytes(200))
    say(chat, "My name is Ada.", program)
    expect(chat.get_by_test_id("stAlert")).to_contain_text("tool.exe: The file's content is")
    button(chat, "Send without it").click()
    expect(chat.get_by_text("Ada.").last).to_be_visible()
    expect(chat.get_by_test_id("stAlert")).to_have_count(0)


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one, in PNG
)
DOT = f"`import base64; open('dot.png', 'wb').write(base64.b64decode('{PIXEL}'))`"


def test_images_are_drawn(stack: Stack, tab: Page, tmp_path: Path) -> None:
    """A plot of the Python tool and a dropped picture are images in the chat, before and after a reload."""
    picture = tmp_path / "shot.png"
    tab.screenshot(path=picture)
    tab.goto(f"{stack.page}/?agent=coding")
    say(tab, f"Run {DOT}", picture)
    answered(tab, 1)
    images = tab.get_by_test_id("stImage")
    expect(images).to_have_count(2)
    tab.reload()
    expect(images).to_have_count(2)
    expect(tab.get_by_text("dot.png").first).to_be_visible()
    with tab.expect_download() as download:
        tab.locator(".st-key-files").get_by_role("button", name="shot.png").click()
    assert download.value.path().read_bytes() == picture.read_bytes()


def test_a_sound_can_be_played(stack: Stack, chat: Page, tmp_path: Path) -> None:
    """A dropped sound has a player that loads it, before and after a reload."""
    sound = tmp_path / "tone.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        file.writeframes(bytes(16_000))
    say(chat, "My name is Ada.", sound)
    answered(chat, 1)
    for _ in range(2):
        expect(chat.get_by_test_id("stAudio")).to_have_js_property("duration", 1)
        expect(chat.get_by_test_id("stChatMessage").get_by_text("tone.wav")).to_be_visible()
        chat.reload()
        answered(chat, 1)


def test_conversations_can_be_opened_and_deleted(stack: Stack, chat: Page) -> None:
    """The list has the latest first; a click or an address opens one, and a deleted one is gone after a while."""
    say(chat, "My name is Grace.")
    answered(chat, 1)
    old = thread_of(chat)
    button(chat, "New chat").click()
    expect(links(chat)).to_have_count(0)
    say(chat, "What is 2 * 3?")
    answered(chat, 1)
    titles = chat.locator(".st-key-chats [class*=st-key-open-] button p")
    expect(titles.nth(0)).to_have_text("What is 2 * 3?")
    expect(titles.nth(1)).to_have_text("My name is Grace.")

    titles.nth(1).click()
    expect(chat).to_have_url(re.compile(old))
    expect(chat.get_by_test_id("stMainBlockContainer").get_by_text("Grace").last).to_be_visible()
    chat.locator(f".st-key-delete-{old}").get_by_role("button").click()
    expect(chat.get_by_text("What can I do for you?")).to_be_visible()
    # Other tests have chats of the same title.
    expect(chat.locator(f".st-key-open-{old}")).to_have_count(0)
    chat.goto(f"{stack.page}/?thread_id={old}")
    expect(chat.get_by_text("What can I do for you?")).to_be_visible()


def test_back_and_forth_lead_through_the_threads(chat: Page) -> None:
    """The browser's own buttons open the thread that was open then."""
    say(chat, "My name is Grace.")
    answered(chat, 1)
    old = thread_of(chat)
    button(chat, "New chat").click()
    expect(links(chat)).to_have_count(0)
    chat.go_back()
    expect(links(chat)).to_have_count(1)
    assert thread_of(chat) == old
    chat.go_forward()
    expect(links(chat)).to_have_count(0)


def test_a_message_follows_a_click_that_the_browser_has_yet_to_show(stack: Stack, tab: Page) -> None:
    """Sent after a click on a new chat, before the new address has come, it is asked and answered there."""
    line = Line()
    tab.route_web_socket(re.compile("/_stcore/stream"), line.connect)
    tab.goto(stack.page)
    say(tab, "My name is Grace.")
    answered(tab, 1)
    old = thread_of(tab)
    line.hold()
    button(tab, "New chat").click()
    until(lambda: tab.wait_for_timeout(50) or line.holds(b"thread_id="))
    say(tab, "What is 2 * 3?")
    line.release()
    expect(tab.get_by_test_id("stMainBlockContainer").get_by_text("What is 2 * 3?")).to_be_visible()
    answered(tab, 1)
    assert thread_of(tab) != old


def test_a_background_run_stays_over_reloads(stack: Stack, tab: Page) -> None:
    """Progress, state and link of a run, and its switch, are there after a reload; it can be cancelled and answers."""
    tab.goto(f"{stack.page}/?agent=bg-task")
    tab.get_by_text("Answer in the background").click()
    say(tab, "work for 600 seconds")
    bar = tab.get_by_test_id("stProgress")
    expect(bar).to_be_visible()
    expect(links(tab)).to_have_count(1)
    for listed in ("chats", "runs"):
        expect(tab.locator(f".st-key-{listed}").get_by_text("work for 600 seconds").first).to_be_visible()
    tab.reload()
    expect(bar).to_contain_text("of 2400")
    expect(links(tab)).to_have_count(1)
    expect(tab.locator(".st-key-runs").get_by_text("work for 600 seconds").first).to_be_visible()
    button(tab, "Cancel").click()
    expect(tab.get_by_text("Stopped.", exact=True)).to_be_visible()
    assert tree(links(tab), "task long work").startswith("chat turn\n")

    expect(tab.get_by_role("switch", name="Answer in the background")).to_be_checked()
    say(tab, "work for 1 seconds")
    answered(tab, 2)
    tab.reload()
    answered(tab, 2)
    expect(tab.get_by_text("Worked for 1 seconds").last).to_be_visible()


def test_sub_agents_are_seen_as_they_work(stack: Stack, tab: Page) -> None:
    """What a worker does is told under its name."""
    tab.goto(f"{stack.page}/?agent=supervisor")
    say(tab, "What is 6 * 7?")
    expect(tab.get_by_text("Sub-agent math")).to_be_visible()
    answered(tab, 1)
    expect(tab.get_by_text("Used transfer_to_math")).to_be_visible()


def test_two_tabs_see_the_same_turn(chat: Page, chromium: Browser) -> None:
    """A turn outlives the tab that asked for it: another one, on a phone, finds it and stops it, and both see that."""
    phone = open_tab(chromium, *PHONE)
    expect(chat).to_have_url(re.compile("thread_id="))
    phone.goto(chat.url)
    expect(phone.get_by_text("What can I do for you?")).to_be_visible()
    say(chat, ENDLESS_STORY)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    address = chat.url
    chat.goto("about:blank")

    phone.goto(address)
    button(phone, "Stop").click()
    expect(phone.get_by_text("Stopped.", exact=True)).to_be_visible()
    chat.goto(address)
    expect(chat.get_by_text("Stopped.", exact=True)).to_be_visible()
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    phone.close()


def test_an_idle_tab_notices_what_happens_elsewhere(stack: Stack, chat: Page, chromium: Browser) -> None:
    """Without a click it follows another tab's turn, a program's answer and its run, and keeps what is being typed."""
    idle = open_tab(chromium)
    expect(chat).to_have_url(re.compile("thread_id="))
    idle.goto(chat.url)
    expect(idle.get_by_text("What can I do for you?")).to_be_visible()
    idle.get_by_test_id("stChatInputTextArea").fill("A draft")
    thread = thread_of(chat)
    say(chat, ENDLESS_STORY)
    expect(idle.get_by_text(BEGINNING)).to_be_visible()
    button(idle, "Stop").click()
    expect(chat.get_by_text("Stopped.", exact=True)).to_be_visible()
    expect(idle.get_by_text("Stopped.", exact=True)).to_be_visible()

    program = AgentClient(stack.service, "bg-task")
    events = program.stream("work for 8 seconds", thread_id=thread)
    next(events)
    for each in (chat, idle):
        expect(each.get_by_text("Not finished")).to_be_visible()
    assert list(events)
    for each in (chat, idle):
        expect(each.get_by_text("Worked for 8 seconds").last).to_be_visible()
        expect(each.get_by_text("Not finished")).to_have_count(0)
    program.submit("work for 600 seconds", thread_id=thread)
    button(chat, "Cancel").click()
    for each in (chat, idle):
        expect(each.get_by_text("Stopped.", exact=True)).to_have_count(2)
        answered(each, 3)
    expect(idle.get_by_test_id("stChatInputTextArea")).to_have_value("A draft")
    idle.close()


def test_a_phone_has_all_of_it(stack: Stack, chromium: Browser) -> None:
    """On 390 pixels nothing sticks out, and the list, a tool, the thumbs and the link are within reach."""
    phone = open_tab(chromium, *PHONE)
    phone.goto(stack.page)
    say(phone, "What is 123456789 * 987654321?")
    answered(phone, 1)
    phone.get_by_text("Used calculator").click()
    expect(phone.get_by_text('"expression"')).to_be_visible()
    phone.get_by_role("radio", name="Thumbs down").click()
    expect(phone.get_by_text(THANKED)).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    open_sidebar(phone)
    expect(phone.locator(".st-key-chats button").first).to_be_in_viewport()
    button(phone, "New chat").click()
    expect(phone.get_by_text("What can I do for you?")).to_be_attached()
    phone.close()
