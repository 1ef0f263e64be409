"""The site of docs/, as `make site` builds it: strict, complete, and without a request to another host."""

import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import telemetry
from docs.http_routes import page as http_page
from tests.parts import missing
from tests.processes import ROOT

MKDOCS = ROOT / ".tools" / "bin" / "mkdocs"
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site."""
    if not MKDOCS.exists():
        missing("the environment .tools", "make site")
    folder = tmp_path_factory.mktemp("site")
    build = [str(MKDOCS), "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        build, cwd=ROOT, env={"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        pass


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    """The address of the site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(60)


def open_page(chromium: Browser, size: str, scheme: str = "light") -> Page:
    width, height = SIZES[size]
    return chromium.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )


def pages(built: Path) -> list[str]:
    return sorted(path.relative_to(built).as_posix() for path in built.rglob("*.html"))


def test_each_page_of_the_docs_is_in_it(built: Path) -> None:
    """Also each example, and each public name with its docstring."""
    written = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}
    examples = {f"{path.relative_to(ROOT / 'docs')}.html" for path in (ROOT / "docs/examples").rglob("*.py")}
    assert written | examples <= set(pages(built))
    reference = (built / "reference.html").read_text()
    shown = re.findall(r'id="telemetry\.(?:\w+\.)?(\w+)"', reference)
    assert set(telemetry.__all__) - set(shown) == set()


def test_no_page_names_a_source_elsewhere(built: Path) -> None:
    """Scripts, styles, pictures, fonts and frames are the site's own; only links lead to other hosts."""
    loaded = re.compile(
        r"""(?:<(?:script|img|iframe|source)\b[^>]*\bsrc|<link\b[^>]*\bhref)=["']?(?:https?:)?//[^"'>\s]+"""
    )
    assert {page: found for page in pages(built) if (found := loaded.findall((built / page).read_text()))} == {}
    styles = "".join(path.read_text() for path in built.rglob("*.css"))
    assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]+", styles) == []


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "dark"), ("phone", "light")])
def test_pages_ask_no_other_host(site: str, built: Path, chromium: Browser, size: str, scheme: str) -> None:
    """In a browser every page loads from its own host, without an error, and is not wider than the screen."""
    page = open_page(chromium, size, scheme)
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    wide = []
    for name in [name for name in pages(built) if "/" not in name and name != "404.html"]:
        page.goto(f"{site}/{name}")
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            wide.append(name)
    page.close()
    assert {url for url in requests if not url.startswith((site, "data:", "blob:"))} == set()
    assert (errors, wide) == ([], [])


def test_it_follows_the_systems_dark_mode(site: str, chromium: Browser) -> None:
    """The background is dark where the system's is."""
    shades = {}
    for scheme in ("light", "dark"):
        page = open_page(chromium, "desktop", scheme)
        page.goto(f"{site}/index.html")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
        page.close()
    assert shades["dark"] < 80 < 200 < shades["light"]


def test_it_can_be_searched(site: str, chromium: Browser) -> None:
    """A word leads to its page, without a service elsewhere."""
    page = open_page(chromium, "desktop")
    page.goto(f"{site}/index.html")
    page.get_by_role("textbox", name="Search").fill("dead letter")
    page.locator(".md-search-result__link").first.wait_for()
    assert page.locator(".md-search-result__link").count() > 1
    page.close()


def test_the_page_of_routes_is_current() -> None:
    """`make docs` would change nothing in docs/http.md."""
    assert (ROOT / "docs/http.md").read_text() == http_page()
