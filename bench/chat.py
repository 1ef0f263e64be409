"""Measure the chat's page in Chromium: ten sessions at once, a thread of 300 turns, an answer of 100 kB.

`python -m bench.chat` prints the table of docs/chat.md. It needs Chromium at /usr/bin/chromium.
"""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, WebSocket, expect, sync_playwright

from app.client import AgentClient
from tests.processes import Process, free_port
from tests.ui.stack import Stack, answered, say

CHROMIUM = "/usr/bin/chromium"
SESSIONS = 10
TURNS = 300
# About 100 kB.
LONG = "Tell me a story of 19000 words"
QUESTION = "What is 6 * 7?"
MEGABYTE = 1_000_000


@dataclass
class Traffic:
    """The bytes that a page has received over its socket."""

    received: int = 0

    def watch(self, page: Page) -> None:
        """Count what the page's socket receives from now on."""
        page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: self._add(frame))

    def _add(self, frame: str | bytes) -> None:
        self.received += len(frame)


@dataclass
class Figures:
    """One line of the table."""

    what: str
    seconds: float
    received: int
    page_process: int
    browser_heap: int = 0

    def __str__(self) -> str:
        sizes = [f"{size / MEGABYTE:.1f} MB" if size else "" for size in (self.received, self.browser_heap)]
        return (
            f"| {self.what} | {self.seconds:.1f} s | {sizes[0]} | {sizes[1]} | {self.page_process / MEGABYTE:.0f} MB |"
        )


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder, _stack(Path(folder)) as (stack, page_process):
        rows = list(_measure(stack, page_process))
    print("| what | until it is drawn | received | the tab's heap | the page's process |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(row)


@contextmanager
def _stack(folder: Path) -> Iterator[tuple[Stack, Process]]:
    addresses = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    stack = Stack(folder, *addresses, settings={"DEMO_PACE_S": "0"})
    with stack.run_viewer(), stack.run_service(), stack.run_page() as page:
        yield stack, page


def _measure(stack: Stack, page: Process) -> Iterator[Figures]:
    client = AgentClient(stack.service, "chatbot")
    for _ in range(TURNS):
        client.invoke(QUESTION, thread_id="many")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield _open(browser, stack, page, "an empty chat", "", ".st-key-starters")
        yield _open(browser, stack, page, f"a thread of {TURNS} turns", "many", f".st-key-exchange-{TURNS - 1}")
        yield _long_answer(browser, stack, page)
        yield _sessions(browser, stack, page)
        browser.close()


def _open(browser: Browser, stack: Stack, process: Process, what: str, thread: str, until: str) -> Figures:
    tab, traffic = browser.new_page(), Traffic()
    tab.set_default_timeout(180_000)
    traffic.watch(tab)
    begun = time.monotonic()
    tab.goto(f"{stack.page}/?thread_id={thread}" if thread else stack.page)
    tab.locator(until).wait_for()
    seconds = time.monotonic() - begun
    heap = tab.evaluate("performance.memory.usedJSHeapSize")
    tab.close()
    return Figures(what, seconds, traffic.received, _resident(process), heap)


def _long_answer(browser: Browser, stack: Stack, process: Process) -> Figures:
    tab, traffic = browser.new_page(), Traffic()
    tab.set_default_timeout(180_000)
    tab.goto(f"{stack.page}/?thread_id=long")
    traffic.watch(tab)
    tab.reload()
    begun, before = time.monotonic(), traffic.received
    say(tab, LONG)
    answered(tab, 1)
    length = len(tab.get_by_test_id("stMainBlockContainer").inner_text())
    heap = tab.evaluate("performance.memory.usedJSHeapSize")
    tab.close()
    received = traffic.received - before
    return Figures(f"an answer of {length / 1000:.0f} kB", time.monotonic() - begun, received, _resident(process), heap)


def _sessions(browser: Browser, stack: Stack, process: Process) -> Figures:
    tabs, traffic = [browser.new_context().new_page() for _ in range(SESSIONS)], Traffic()
    for tab in tabs:
        tab.set_default_timeout(180_000)
        traffic.watch(tab)
        tab.goto(stack.page)
        expect(tab.locator(".st-key-starters")).to_be_visible()
    begun = time.monotonic()
    for tab in tabs:
        say(tab, QUESTION)
    for tab in tabs:
        answered(tab, 1)
    seconds = time.monotonic() - begun
    return Figures(f"{SESSIONS} sessions that ask at once", seconds, traffic.received, _resident(process))


def _resident(process: Process) -> int:
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
