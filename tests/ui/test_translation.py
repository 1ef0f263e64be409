"""The pages in another language: every text comes from `ui/texts.py`, and both directions can be read."""

import ast
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from app.client import AgentClient, Refused
from app.models.demo_model import TALE
from app.threads import UNTITLED
from tests.processes import ROOT
from tests.ui.stack import BEGINNING, ENDLESS_STORY, PHONE, Stack, button, say, thread_of

# Each letter of these texts is one that English does not have.
LETTERS = str.maketrans(
    {chr(start + number): chr(to + number) for start, to in ((65, 0x0410), (97, 0x0430)) for number in range(26)}
)
# A background run's task, which no history names.
TASK = "long work"
STORY = (" ".join(TALE.split()) + " ") * 50
# What Streamlit itself calls its parts.
STREAMLIT = {
    "Add files",
    "Chat message from assistant",
    "Chat message from user",
    "Choose an option",
    "Close",
    "Collapse sidebar",
    "Copy to clipboard",
    "Ctrl + Shift + O",
    "Deploy",
    "Expand sidebar",
    "Feedback rating",
    "Help",
    "Help for",
    "Main menu",
    "Open",
    "Send message",
    "Shortcut",
    "Sidebar",
    "Skip to main content",
    "Thumbs down",
    "Thumbs up",
    "Upload files",
    "file upload",
    "progress",
}
SHOWN = """() => {
  const found = new Set();
  const visible = (node) => !node.closest("script, style, noscript, [translate=no], .katex, code");
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    // A text may be in several nodes.
    const nodes = [...parent.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    if (visible(parent)) found.add(nodes.map((node) => node.textContent).join("").trim());
  }
  for (const name of ["aria-label", "title", "placeholder", "alt"]) {
    for (const node of document.querySelectorAll(`[${name}]`)) found.add(node.getAttribute(name).trim());
  }
  return [...found];
}"""


class Translated(ast.NodeTransformer):
    """`ui/texts.py` in letters of another alphabet."""

    def __init__(self, letters: dict[int, str], direction: str) -> None:
        self._letters = letters
        self._constants = {"LANGUAGE": "xx", "DIRECTION": direction}

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        """Leave docstrings as they are."""
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Leave types as they are."""
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Set the language and the direction; translate any other text."""
        name = node.targets[0]
        if isinstance(name, ast.Name) and name.id in self._constants:
            node.value = ast.Constant(self._constants[name.id])
            return node
        return self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> ast.Dict:
        """Translate the values, not the keys."""
        node.values = [self.visit(value) for value in node.values]
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.FormattedValue:
        """Leave the format of a number as it is."""
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        """Translate a text."""
        return ast.Constant(node.value.translate(self._letters)) if isinstance(node.value, str) else node


def translate(folder: Path, letters: dict[int, str], direction: str) -> Any:
    """Copy the page into this folder, with its texts in other letters; return these texts."""
    shutil.copytree(ROOT / "ui", folder / "ui")
    path = folder / "ui" / "texts.py"
    source = Translated(letters, direction).visit(ast.parse(path.read_text()))
    path.write_text(ast.unparse(source))
    module = spec_from_file_location("translated_texts", path)
    assert module
    assert module.loader
    texts = module_from_spec(module)
    module.loader.exec_module(texts)
    return texts


def foreign(tab: Page, known: Collection[str]) -> list[str]:
    """What a page shows in Latin letters, apart from what the service or Streamlit says."""
    found = []
    for text in tab.evaluate(SHOWN):
        rest = "" if " ".join(text.split()) in STORY else text
        for each in sorted({*known, *STREAMLIT}, key=len, reverse=True):
            rest = rest.replace(each, "")
        if re.search("[A-Za-z]{2,}", rest):
            found.append(text)
    return found


def strings(value: object) -> set[str]:
    """Every string within this value."""
    match value:
        case str():
            return {value, *value.splitlines()} - {""}
        case dict():
            return set().union(*map(strings, value.values()), *map(strings, value))
        case list():
            return set().union(*map(strings, value))
        case _:
            return set()


def said_by_the_service(stack: Stack, tab: Page) -> set[str]:
    """What the service says of itself and of the thread that is open."""
    client = AgentClient(stack.service)
    said = strings(client.info().model_dump()) | strings(client.get_threads().model_dump())
    said |= {UNTITLED, TASK}
    with suppress(Refused):
        history = client.get_history(thread_of(tab))
        said |= strings(history.model_dump())
        for turn in history.turns:
            said |= strings(client.get_spans(turn.run_id).model_dump())
    return said


def test_no_page_has_a_text_of_its_own(mortal: Stack, tab: Page, tmp_path: Path) -> None:
    """With `ui/texts.py` translated, all that is left in English is what the service says, and Streamlit's buttons."""
    texts = translate(tmp_path, LETTERS, "ltr")

    untranslated: list[str] = []

    def look() -> None:
        untranslated.extend(foreign(tab, said_by_the_service(mortal, tab)))

    def is_answered(times: int) -> None:
        expect(button(tab, texts.STOP)).to_have_count(0)
        expect(tab.get_by_role("link", name=texts.VIEW_TRACE)).to_have_count(times)

    with mortal.run_service() as service, mortal.run_page(tmp_path):
        tab.goto(mortal.page)
        expect(tab.get_by_text(texts.WELCOME)).to_be_visible()
        look()
        say(tab, "What is 6 * 7?")
        is_answered(1)
        expect(tab.locator("html")).to_have_attribute("lang", "xx")
        tab.get_by_role("radio", name="Thumbs up").click()
        button(tab, texts.COMMENT).click()
        expect(tab.get_by_label(texts.COMMENT_QUESTION)).to_be_visible()
        look()
        tab.keyboard.press("Escape")
        tab.get_by_text(texts.STEPS, exact=True).click()
        expect(tab.locator(".spans li").first).to_be_visible()
        button(tab, texts.EDIT_MESSAGE).click()
        expect(tab.get_by_role("textbox", name=texts.EDITED_MESSAGE)).to_be_visible()
        look()
        button(tab, texts.CANCEL).click()
        button(tab, texts.REGENERATE).click()
        expect(tab.get_by_text("2 / 2")).to_be_visible()
        is_answered(1)
        button(tab, texts.MORE_ABOUT_CHAT).click()
        expect(button(tab, texts.COPY_LINK)).to_be_visible()
        look()
        tab.keyboard.press("Escape")

        say(tab, ENDLESS_STORY)
        expect(button(tab, texts.STOP)).to_be_visible()
        field = tab.get_by_test_id("stChatInputTextArea")
        field.fill("/fail")
        field.press("Enter")
        expect(tab.get_by_text(texts.next_message("/fail"))).to_be_visible()
        expect(tab.get_by_text(BEGINNING)).to_be_visible()
        button(tab, texts.STOP).click()
        is_answered(3)
        expect(tab.get_by_text(texts.STOPPED)).to_be_visible()
        look()
        tab.locator(f".st-key-delete-{thread_of(tab)}").get_by_role("button").click()
        expect(button(tab, texts.UNDO)).to_be_visible()
        look()

        tab.goto(f"{mortal.page}/?agent=interrupt")
        say(tab, "Book a table for 4 at 19:30")
        expect(button(tab, texts.DECISIONS["approve"])).to_be_visible()
        look()
        tab.goto(f"{mortal.page}/?agent=bg-task&background=true")
        say(tab, "work for 600 seconds")
        expect(tab.get_by_test_id("stProgress")).to_be_visible()
        look()
        button(tab, texts.NEW_CHAT).click()
        expect(tab.get_by_text(texts.WELCOME)).to_be_visible()
        known = said_by_the_service(mortal, tab)
        service.popen.kill()
        expect(tab.get_by_text(texts.RECONNECTING)).to_be_visible()
        untranslated += foreign(tab, {*known, "No agent service answers at", mortal.service})
    assert not untranslated, sorted(set(untranslated))


def test_a_page_from_right_to_left(mortal: Stack, tab: Page, tmp_path: Path) -> None:
    """It begins at the right; on a phone its sidebar is out of sight until it is opened."""
    texts = translate(tmp_path, LETTERS, "rtl")
    with mortal.run_service(), mortal.run_page(tmp_path):
        tab.goto(mortal.page)
        expect(tab.locator("html")).to_have_attribute("dir", "rtl")
        sidebar, main = (tab.get_by_test_id(name).bounding_box() for name in ("stSidebar", "stMainBlockContainer"))
        assert sidebar
        assert main
        assert sidebar["x"] >= main["x"] + main["width"] > 0

        tab.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        tab.reload()
        expect(tab.get_by_text(texts.WELCOME)).to_be_visible()
        expect(tab.locator("html")).to_have_attribute("dir", "rtl")
        expect(button(tab, texts.NEW_CHAT)).not_to_be_visible()
        tab.get_by_test_id("stExpandSidebarButton").click()
        expect(button(tab, texts.NEW_CHAT)).to_be_visible()
