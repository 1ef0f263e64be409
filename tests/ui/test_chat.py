"""The chat as a person uses it: a real browser, the page, the service and the viewer, each a process of its own."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.client import AgentClient
from tests.processes import Process, free_port, start, until

STORY, BEGINNING = "Tell me a long story", "Once there was a small river"

expect.set_options(timeout=20_000)


@dataclass
class Stack:
    """The addresses of the running parts, and how to start the service again."""

    folder: Path
    viewer: str
    service: str
    page: str

    @property
    def backend(self) -> dict[str, str]:
        return {
            "LANGFUSE_HOST": self.viewer,
            "LANGFUSE_PUBLIC_KEY": "pk-lf-local",
            "LANGFUSE_SECRET_KEY": "sk-lf-local",
            "PYTHON_DOTENV_DISABLED": "1",
        }

    def run_viewer(self) -> AbstractContextManager[Process]:
        env = {"VIEWER_PORT": port(self.viewer), "VIEWER_DB": str(self.folder / "viewer.db")}
        return start([sys.executable, "-m", "telemetry.viewer"], env, f"{self.viewer}/api/public/health")

    def run_service(self) -> AbstractContextManager[Process]:
        env = {"PORT": port(self.service), "DATA_DIR": str(self.folder / "service"), **self.backend}
        return start([sys.executable, "-m", "app"], env, f"{self.service}/health")

    def run_page(self) -> AbstractContextManager[Process]:
        argv = [sys.executable, "-m", "streamlit", "run", "ui/page.py", "--server.port", port(self.page)]
        env = {"AGENT_URL": self.service, "DATA_DIR": str(self.folder / "page"), **self.backend}
        return start(argv, env, f"{self.page}/_stcore/health")


def port(url: str) -> str:
    return url.rpartition(":")[2]


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    viewer, service, page = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    stack = Stack(tmp_path_factory.mktemp("stack"), viewer, service, page)
    with stack.run_viewer():
        yield stack


@pytest.fixture(scope="module")
def stack(viewed: Stack) -> Iterator[Stack]:
    """What the tests share that leave it running."""
    with viewed.run_service(), viewed.run_page():
        yield viewed


@pytest.fixture
def mortal(viewed: Stack, tmp_path: Path) -> Stack:
    """A service and a page that a test starts and ends by itself."""
    service, page = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    return replace(viewed, folder=tmp_path, service=service, page=page)


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    yield page
    page.close()


@pytest.fixture
def chat(stack: Stack, tab: Page) -> Page:
    tab.goto(stack.page)
    return tab


def say(chat: Page, message: str) -> None:
    line = chat.get_by_test_id("stChatInputTextArea")
    expect(line).to_be_enabled()
    line.fill(message)
    line.press("Enter")


def stop_button(chat: Page) -> Locator:
    return chat.get_by_role("button", name="Stop")


def links(chat: Page) -> Locator:
    return chat.get_by_role("link", name="View trace")


def tree(link: Locator, *named: str) -> str:
    """The trace that the link leads to, as text, once it is in one piece and holds these words."""
    url = f"{link.get_attribute('href')}.txt"
    return until(lambda: whole(httpx.get(url, trust_env=False).text, named), 30)


def whole(text: str, named: Sequence[str]) -> str:
    roots = [line for line in text.splitlines() if line and not line.startswith(" ")]
    return text if len(roots) == 1 and all(word in text for word in named) else ""


def test_an_answer_is_seen_while_it_is_written_and_survives_reloads(chat: Page) -> None:
    """Words appear before the end, a reload in between goes on watching, and one after it shows the same link."""
    say(chat, STORY)
    answer = chat.get_by_text(BEGINNING)
    expect(answer).to_be_visible()
    expect(stop_button(chat)).to_be_visible()
    early = answer.inner_text()

    chat.reload()
    expect(stop_button(chat)).to_be_visible()
    expect(links(chat)).to_have_count(1, timeout=40_000)
    expect(stop_button(chat)).to_have_count(0)
    whole = answer.inner_text()
    assert whole.startswith(early)
    assert len(whole) > len(early)
    expect(chat.get_by_text(STORY)).to_have_count(1)
    link = links(chat).get_attribute("href")

    chat.reload()
    expect(links(chat)).to_have_count(1)
    assert links(chat).get_attribute("href") == link
    assert answer.inner_text() == whole


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
    say(chat, STORY)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    stop_button(chat).click()
    expect(chat.get_by_text("Stopped.")).to_be_visible(timeout=5_000)
    expect(chat.get_by_text(BEGINNING)).to_be_visible()
    assert "ERROR" not in tree(links(chat), "chat turn", "LLM")


def test_a_service_that_dies_is_told_in_words_and_may_come_back(mortal: Stack, tab: Page) -> None:
    """A dead service leaves a sentence, then the way to start it; the thread goes on when it is back."""
    with mortal.run_page():
        with mortal.run_service() as service:
            tab.goto(mortal.page)
            say(tab, "My name is Ada.")
            expect(links(tab)).to_have_count(1)
            say(tab, STORY)
            expect(tab.get_by_text(BEGINNING)).to_be_visible()
            service.popen.kill()
            expect(tab.get_by_text(f"No agent service answers at {mortal.service}")).to_be_visible()
        with mortal.run_service():
            tab.get_by_role("button", name="Try again").click()
            expect(tab.get_by_text("broke before the answer was complete")).to_be_visible()
            say(tab, "What is my name?")
            expect(tab.get_by_text("Your name is Ada")).to_be_visible()
            expect(links(tab)).to_have_count(3)
            assert tree(links(tab).nth(1), "chat turn").startswith("chat turn ERROR")


def test_a_page_that_is_told_to_end_ends_its_turns(mortal: Stack, tab: Page) -> None:
    """SIGTERM stops the running turn and ends its span: the trace has its root."""
    with mortal.run_service(), mortal.run_page() as process:
        tab.goto(mortal.page)
        say(tab, STORY)
        expect(tab.get_by_text(BEGINNING)).to_be_visible()
        thread_id = tab.url.rpartition("thread_id=")[2]
        assert process.stop() == 0

        history = AgentClient(mortal.service).get_history(thread_id)
        (url,) = history.trace_urls.values()
        until(lambda: httpx.get(f"{url}.txt", trust_env=False).text.startswith("chat turn"))
        assert history.messages[-1].response_metadata["finish_reason"] == "stopped"
