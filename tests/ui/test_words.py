"""What models and people write, as a browser shows it: readable, within its column, and fetched from nowhere."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.ui.stack import PHONE, Stack, answered, button, open_sidebar, open_tab, say

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WIDE = "\n\n" + "\n".join("|" + "|".join(cells) + "|" for cells in ([f"heading {n}" for n in range(30)], ["---"] * 30))


class Elsewhere(HTTPServer):
    """Another host's images, and who asked for them."""

    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Image(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Elsewhere)
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        self.wfile.write(PIXEL)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay quiet."""


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere(("127.0.0.1", 0), Image) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_model_s_words_fetch_no_image(stack: Stack, tab: Page, elsewhere: Elsewhere) -> None:
    """An image that an answer names at another host is not asked for: its address could carry what the model read."""
    hosts: set[str] = set()
    tab.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    tab.goto(stack.page)
    say(tab, f"Look: ![secret]({elsewhere.url}/?q=secret)")
    answered(tab, 1)
    image = tab.get_by_test_id("stMarkdownContainer").get_by_role("img", name="secret")
    expect(image).to_have_js_property("complete", value=True)
    expect(image).to_have_js_property("naturalWidth", 0)
    assert elsewhere.asked == []
    assert hosts - {urlsplit(elsewhere.url).netloc, ""} == {urlsplit(stack.page).netloc}


def test_prices_are_no_formulas(chat: Page) -> None:
    """Two amounts of dollars in one sentence are read as such; a formula is set as one."""
    say(chat, "One costs $5 and two cost $9.50 with $x^2$")
    answered(chat, 1)
    expect(chat.get_by_text("One costs $5 and two cost $9.50 with").last).to_be_visible()
    expect(chat.locator(".katex")).to_have_count(1)


@pytest.mark.parametrize("size", [(1280, 800), PHONE])
def test_a_wide_table_stays_in_its_column(
    stack: Stack, chromium: Browser, tmp_path: Path, size: tuple[int, int]
) -> None:
    """What is wider than the column scrolls within it."""
    table = tmp_path / "table.txt"
    table.write_text(WIDE)
    tab = open_tab(chromium, *size)
    tab.goto(stack.page)
    say(tab, "Please read the file table.txt", table)
    answered(tab, 1)
    shown, column = tab.locator("table").bounding_box(), tab.get_by_test_id("stChatInput").bounding_box()
    assert shown
    assert column
    assert shown["x"] + shown["width"] <= column["x"] + column["width"]
    tab.close()


def test_words_run_in_their_own_direction(chat: Page) -> None:
    """A question in Hebrew begins on its right, before the Latin word that ends it."""
    say(chat, "שלום hello")
    answered(chat, 1)
    question = chat.get_by_test_id("stText").locator("span")
    expect(question).to_have_css("unicode-bidi", "plaintext")


ARABIC = """

1. أولاً: شغّل `python -m app` الآن
2. العدد هو \\(a+b\\) اليوم

> اقتباس قصير

| الاسم | العدد |
|---|---|
| تفاح | 12 |

1. first
"""


@pytest.mark.parametrize("size", [(1440, 900), PHONE])
def test_lists_and_tables_run_in_their_own_direction(
    stack: Stack, chromium: Browser, tmp_path: Path, size: tuple[int, int]
) -> None:
    """An Arabic list has its numbers on the right, within the column; code and formulas run from the left."""
    notes = tmp_path / "notes.txt"
    notes.write_text(ARABIC)
    tab = open_tab(chromium, *size)
    tab.goto(stack.page)
    say(tab, "اقرأ من فضلك شكراً جزيلاً لك: read the file notes.txt", notes)
    answered(tab, 1)
    answer = tab.get_by_test_id("stChatMessage").last
    for element in ("ol", "blockquote", "table"):
        expect(answer.locator(element).first).to_have_css("direction", "rtl")
    expect(answer.locator("ol").last).to_have_css("direction", "ltr")
    expect(answer.locator("ol code")).to_have_css("direction", "ltr")
    expect(answer.locator(".katex").first).to_have_css("direction", "ltr")
    expect(answer.locator("ol").first).to_have_css("padding-right", "24px")
    expect(answer.locator("blockquote")).to_have_css("border-right-style", "solid")
    # The beginning of a long title is seen, not its end.
    expect(tab.locator(".st-key-chats button :has(> p)").first).to_have_css("direction", "rtl")
    tab.close()


def test_the_line_is_typed_in_without_a_mouse(chat: Page) -> None:
    """Once an answer is there the keys go to the line again."""
    line = chat.get_by_test_id("stChatInputTextArea")
    expect(line).to_be_enabled()
    line.focus()
    for number, message in enumerate(("My name is Ada.", "What is my name?"), 1):
        expect(line).to_be_focused()
        chat.keyboard.type(message)
        chat.keyboard.press("Enter")
        answered(chat, number)
    expect(line).to_be_focused()


def test_a_phone_shows_what_was_chosen(stack: Stack, chromium: Browser) -> None:
    """A conversation, or a new one, that is opened from the sidebar is no longer covered by it."""
    phone = open_tab(chromium, *PHONE)
    phone.goto(stack.page)
    say(phone, "My name is Grace.")
    answered(phone, 1)
    unfold = phone.get_by_test_id("stExpandSidebarButton")
    for chosen in (button(phone, "New chat"), phone.locator(".st-key-chats button").first, button(phone, "New chat")):
        open_sidebar(phone)
        chosen.click()
        expect(unfold).to_be_visible()
    phone.close()


def test_the_page_is_dark_where_all_is(stack: Stack, chromium: Browser) -> None:
    """It follows the system's colours."""
    shades = []
    for scheme in ("light", "dark"):
        tab = chromium.new_page(color_scheme=scheme)
        tab.goto(stack.page)
        expect(tab.get_by_text("What can I do for you?")).to_be_visible()
        shades.append(tab.get_by_test_id("stApp").evaluate("app => getComputedStyle(app).backgroundColor"))
        tab.close()
    assert shades[0] == "rgb(255, 255, 255)" != shades[1]


AS_WRITTEN = """roses
violets

A formula \\(a^2\\) in a line, and one of its own: \\[ \\frac{a}{b} \\] It takes 3~5 days, or 7~10.

Returns:List[int] for $5 or $6, see `x:int = ~1`.

```python
first:int = 1
second = "$5 ~ $6"
```"""


def test_words_are_shown_as_they_were_written(stack: Stack, tab: Page, tmp_path: Path) -> None:
    """Formulas in TeX's brackets are set, a line break is one, and tildes, colons, dollars and code stay."""
    notes = tmp_path / "poem.txt"
    notes.write_text(AS_WRITTEN)
    tab.goto(stack.page)
    say(tab, "Please read the file poem.txt", notes)
    answered(tab, 1)
    answer = tab.get_by_test_id("stChatMessage").last
    expect(answer.locator(".katex")).to_have_count(2)
    expect(answer.locator(".katex-display")).to_have_count(1)
    expect(answer.locator("p").filter(has_text="violets").locator("br")).to_have_count(1)
    expect(answer.locator("del")).to_have_count(0)
    expect(answer.locator("p").filter(has_text="It takes 3~5 days, or 7~10.")).to_be_visible()
    expect(answer.locator("p").filter(has_text="Returns:List[int] for $5 or $6, see x:int = ~1.")).to_be_visible()
    expect(answer.locator("pre code").last).to_have_text('first:int = 1\nsecond = "$5 ~ $6"')


def test_a_wide_table_keeps_its_rows_low_on_a_phone(stack: Stack, chromium: Browser, tmp_path: Path) -> None:
    """Its columns stay as wide as words are: it scrolls instead of breaking each of them."""
    table = tmp_path / "table.txt"
    cells = ("Departure", "Destination", "Platform", "Remarks on the train", "Arrival")
    table.write_text("\n\n" + "\n".join("|" + "|".join(row) + "|" for row in (cells, ["---"] * 5, cells)))
    phone = open_tab(chromium, *PHONE)
    phone.goto(stack.page)
    say(phone, "Please read the file table.txt", table)
    answered(phone, 1)
    row = phone.locator("table tbody tr").last.bounding_box()
    assert row
    assert row["height"] < 110
    phone.close()


def test_an_answer_is_copied_as_markdown(stack: Stack, chromium: Browser) -> None:
    """What was copied is the model's own text, marks and tools included."""
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    tab.goto(stack.page)
    say(tab, "Look at $5 and **bold**")
    answered(tab, 1)
    button(tab, "Copy").click()
    expect(button(tab, "Copied")).to_be_visible()
    assert '"Look at $5 and **bold**"' in tab.evaluate("navigator.clipboard.readText()")
    context.close()
