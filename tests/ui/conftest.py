"""One viewer, one service and one page for all tests of this room that leave them running."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.processes import free_port
from tests.ui.stack import Stack, open_tab


@pytest.fixture(scope="session")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    viewer, service, page = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    stack = Stack(tmp_path_factory.mktemp("stack"), viewer, service, page)
    with stack.run_viewer():
        yield stack


@pytest.fixture(scope="session")
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
    page = open_tab(chromium)
    yield page
    page.close()


@pytest.fixture
def chat(stack: Stack, tab: Page) -> Page:
    tab.goto(stack.page)
    return tab
