"""A thread of many turns: the latest are drawn, and the others on request."""

from playwright.sync_api import Page, expect

from app.client import AgentClient
from tests.ui.stack import Stack, answered, links, say
from tests.ui.stack import button as named


def test_the_latest_turns_are_drawn_and_the_others_on_request(stack: Stack, tab: Page) -> None:
    """A page draws forty turns, and all of them after a click; a question is sent from either."""
    client = AgentClient(stack.service, "chatbot")
    for number in range(43):
        client.invoke(f"My name is N{number}.", thread_id="many-turns")
    tab.goto(f"{stack.page}/?thread_id=many-turns")
    answered(tab, 40)
    expect(tab.get_by_text("Nice to meet you, N2.")).to_have_count(0)
    say(tab, "What is my name?")
    expect(tab.get_by_text("Your name is N42.")).to_be_visible()
    named(tab, "Show earlier turns (4)").click()
    expect(links(tab)).to_have_count(44)
    expect(tab.get_by_text("Nice to meet you, N0.")).to_be_attached()
