"""Deciding about a call: what is approved is what the card shows."""

from playwright.sync_api import Page, expect

from tests.ui.stack import Stack, answered, button, say


def test_changed_arguments_are_approved_by_the_button_that_was_there(stack: Stack, tab: Page) -> None:
    """Whoever changes a number and clicks on "Approve" at once does not approve the old one."""
    tab.goto(f"{stack.page}/?agent=interrupt")
    say(tab, "Book a table for 4 at 19:30")
    arguments = tab.get_by_role("textbox", name="Arguments of book_table")
    expect(arguments).to_be_visible()
    arguments.fill('{"people": 6, "time": "19:30"}')
    button(tab, "Approve").click()
    expect(tab.get_by_text("Booked a table for 6 at 19:30.")).to_be_visible()
    answered(tab, 2)


def test_arguments_that_cannot_be_read_are_not_approved(stack: Stack, tab: Page) -> None:
    """The card stays, and says what is wrong; as they were, the arguments can be approved again."""
    tab.goto(f"{stack.page}/?agent=interrupt")
    say(tab, "Book a table for 4 at 19:30")
    arguments = tab.get_by_role("textbox", name="Arguments of book_table")
    expect(arguments).to_be_visible()
    written = arguments.input_value()
    for wrong in ("", "{people: 6}", "[6]"):
        arguments.fill(wrong)
        button(tab, "Approve").click()
        expect(tab.get_by_text("The arguments are not a JSON object").last).to_be_visible()
    arguments.fill(written)
    button(tab, "Approve").click()
    expect(tab.get_by_text("Booked a table for 4 at 19:30.")).to_be_visible()
