"""The chat as a person uses it: the page, the service and the viewer as processes, and what a person does there."""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from playwright.sync_api import Browser, Locator, Page, expect

from app.client import AgentClient
from tests.processes import ROOT, Process, start, until

BEGINNING = "Once there was a small river"
# For who has to find it still being told.
ENDLESS_STORY = "Tell me a story of 4000 words"
KEYS = ("pk-lf-local", "sk-lf-local")
PHONE = (390, 844)
# A score that its backend did not confirm in time is queued: a busy machine.
THANKED = re.compile("Thank you: (stored|queued, it will be sent)")

expect.set_options(timeout=60_000)


@dataclass
class Stack:
    """The addresses of the running parts, and how to start them."""

    folder: Path
    viewer: str
    service: str
    page: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def backend(self) -> dict[str, str]:
        return {
            "LANGFUSE_HOST": self.viewer,
            "LANGFUSE_PUBLIC_KEY": KEYS[0],
            "LANGFUSE_SECRET_KEY": KEYS[1],
            "PYTHON_DOTENV_DISABLED": "1",
            **self.settings,
        }

    def run_viewer(self) -> AbstractContextManager[Process]:
        env = {"VIEWER_PORT": port(self.viewer), "VIEWER_DB": str(self.folder / "viewer.db")}
        return start([sys.executable, "-m", "telemetry.viewer"], env, f"{self.viewer}/api/public/health")

    def run_service(self) -> AbstractContextManager[Process]:
        folder = self.folder / "service"
        env = {"PORT": port(self.service), "DATA_DIR": str(folder), "TELEMETRY_SPOOL_DIR": str(folder / "spool")}
        prices = {"MODEL_PRICES": "demo=5/10"}
        return start([sys.executable, "-m", "app"], {**env, **prices, **self.backend}, f"{self.service}/health")

    def run_page(self, sources: Path = ROOT) -> AbstractContextManager[Process]:
        """Start the page, with the `ui` of another folder where one is given."""
        serve = str(sources / "ui" / "serve.py")
        argv = [sys.executable, "-m", "streamlit", "run", serve, "--server.port", port(self.page)]
        folder = self.folder / "page"
        env = {"AGENT_URL": self.service, "DATA_DIR": str(folder), "TELEMETRY_SPOOL_DIR": str(folder / "spool")}
        env |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(map(str, (sources, ROOT)))}
        return start(argv, {**env, **self.backend}, f"{self.page}/_stcore/health")

    def end_answer(self, thread_id: str) -> None:
        """End what is being answered on a thread, as another program of its user does."""
        client = AgentClient(self.service)
        client.cancel(client.get_thread(thread_id).run_id or "")

    def observations(self, **where: str) -> list[dict[str, Any]]:
        """What the viewer has of a trace or a session."""
        return self._read("v2/observations", limit="1000", **where)

    def scores(self, trace_id: str) -> list[dict[str, Any]]:
        """The scores of a trace."""
        return self._read("v3/scores", traceId=trace_id, fields="details")

    def names(self, thread_id: str) -> list[str]:
        """What happened on a thread, by the names of its spans: in its session, or with the thread as metadata."""
        everything = self.observations(fields="core,basic,metadata,trace_context")
        return [each["name"] for each in everything if thread_id in (each["sessionId"], _thread(each))]

    def _read(self, path: str, **query: str) -> list[dict[str, Any]]:
        url = f"{self.viewer}/api/public/{path}"
        return httpx.get(url, params=query, auth=KEYS, trust_env=False, timeout=60).json()["data"]


def _thread(observation: dict[str, Any]) -> str | None:
    return (observation["metadata"] or {}).get("thread")


def open_tab(browser: Browser, width: int = 1280, height: int = 800) -> Page:
    """A window of its own; it waits as long as a machine under load may take."""
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.set_default_timeout(60_000)
    return tab


def port(url: str) -> str:
    return url.rpartition(":")[2]


def say(chat: Page, message: str, *files: Path) -> None:
    """Write a line, with files dropped on it, and send it."""
    line = chat.get_by_test_id("stChatInputTextArea")
    expect(line).to_be_enabled()
    if files:
        chat.get_by_test_id("stChatInput").locator("input[type=file]").set_input_files(files)
        for file in files:
            expect(chat.get_by_test_id("stChatInput").get_by_text(file.name)).to_be_visible()
    line.fill(message)
    # Not before every file is there.
    chat.get_by_role("button", name="Send message").click()


def button(chat: Page, name: str) -> Locator:
    return chat.get_by_role("button", name=name)


def links(chat: Page) -> Locator:
    return chat.get_by_role("link", name="View trace")


def answered(chat: Page, times: int) -> None:
    """Wait until so many answers are over."""
    expect(button(chat, "Stop")).to_have_count(0)
    expect(links(chat)).to_have_count(times)
    expect(chat.get_by_text("Working in the background …")).to_have_count(0)


def settled(chat: Page) -> None:
    """Wait until the page is drawn: a redraw replaces what is being clicked."""
    expect(chat.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def open_sidebar(phone: Page) -> None:
    """Open the sidebar of a narrow page, once a redraw cannot take the click."""
    settled(phone)
    phone.get_by_test_id("stExpandSidebarButton").click()
    expect(button(phone, "New chat")).to_be_visible()


def thread_of(chat: Page) -> str:
    return parse_qs(urlsplit(chat.url).query)["thread_id"][0]


def trace_of(link: Locator) -> str:
    return (link.get_attribute("href") or "").rpartition("/")[2]


def tree(link: Locator, *named: str) -> str:
    """The trace that the link leads to, as text, once it is in one piece and holds these words."""
    url = f"{link.get_attribute('href')}.txt"
    return until(lambda: whole(httpx.get(url, trust_env=False, timeout=60).text, named), 60)


def whole(text: str, named: Sequence[str]) -> str:
    roots = [line for line in text.splitlines() if line and not line.startswith(" ")]
    # One that is marked has a parent which is still to come.
    return text if len(roots) == 1 and not roots[0].startswith("^") and all(word in text for word in named) else ""
