"""The viewer beside Phoenix, in a browser, on the same 3,000 traces: `python -m bench.viewer_peer PHOENIX_PYTHON`.

The argument is the Python of an environment with `arize-phoenix`, which is no dependency of this project.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from bench.viewer import WIDE, Server, fill, free_port, started, viewer
from bench.viewer_traces import wide_trace

TRACES = 3_000
CHROMIUM = "/usr/bin/chromium"
WORD = "refund"
PATIENCE_MS = 240_000
OTLP = {"viewer": "/api/public/otel/v1/traces", "Phoenix": "/v1/traces"}


@contextmanager
def phoenix(python: str, folder: Path) -> Iterator[Server]:
    """Start Phoenix with its files in this folder."""
    port = free_port()
    env = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    argv = [python, "-m", "phoenix.server.main", "serve"]
    with started(argv, env, f"http://127.0.0.1:{port}", "/healthz", [folder]) as server:
        yield server


def looks_of_viewer(page: Page, url: str) -> dict[str, Callable[[], None]]:
    """Return what a reader does in the viewer, each until the result is on the screen."""
    pages = f"{url}/project/local/traces"

    def open_trace(size: int) -> None:
        page.goto(f"{pages}/{_id(size)}")
        page.get_by_text("graph", exact=True).first.wait_for()

    def list_traces() -> None:
        page.goto(pages)
        page.locator("tbody tr").first.wait_for()

    def find() -> None:
        page.get_by_placeholder("Words asked or answered").fill(WORD)
        page.keyboard.press("Enter")
        page.locator("tbody tr", has_text=WORD).first.wait_for()

    return {"list": list_traces, "find a word": find, **{_opens(size): _of(open_trace, size) for size in WIDE}}


def looks_of_phoenix(page: Page, url: str, project: str) -> dict[str, Callable[[], None]]:
    """Return the same in Phoenix."""
    pages = f"{url}/projects/{project}/traces"

    def open_trace(size: int) -> None:
        page.goto(f"{pages}/{_id(size)}", wait_until="domcontentloaded")
        page.get_by_text("graph", exact=True).first.wait_for()

    def list_traces() -> None:
        page.goto(pages, wait_until="domcontentloaded")
        page.locator("tbody tr td").first.wait_for()

    def find() -> None:
        page.locator(".cm-content").first.click()
        page.keyboard.type(f"'{WORD}' in input.value")
        page.keyboard.press("Enter")
        page.locator("tbody tr", has_text=WORD).first.wait_for()

    return {"list": list_traces, "find a word": find, **{_opens(size): _of(open_trace, size) for size in WIDE}}


def measure(name: str, server: Server, page: Page) -> dict[str, str]:
    """Fill a server, and return its figures."""
    fill(server, OTLP[name], TRACES)
    for size in WIDE:
        server.post(OTLP[name], wide_trace(size, time.time_ns()))
    time.sleep(30)  # Phoenix stores in the background
    if name == "viewer":
        looks = looks_of_viewer(page, server.url)
    else:
        projects = server.client.get(f"{server.url}/v1/projects").json()["data"]
        looks = looks_of_phoenix(page, server.url, next(each["id"] for each in projects if each["name"] == "default"))
    found = {}
    for title, look in looks.items():
        begun = time.perf_counter()
        look()
        found[title] = f"{time.perf_counter() - begun:.1f} s"
        print(name, title, found[title], file=sys.stderr)
    return found | {
        "memory": f"{server.resident_mb('VmHWM'):.0f} MB",
        "size on disk": f"{server.disk_mb():.0f} MB",
    }


def main(python: str) -> None:
    """Print the table."""
    columns = {}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for name, start in (("viewer", lambda: viewer(Path(one))), ("Phoenix", lambda: phoenix(python, Path(other)))):
            with start() as server, browser.new_context(viewport={"width": 1280, "height": 800}) as context:
                page = context.new_page()
                page.set_default_timeout(PATIENCE_MS)
                columns[name] = measure(name, server, page)
        browser.close()
    print("| | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for title in columns["viewer"]:
        print(f"| {title} | " + " | ".join(column[title] for column in columns.values()) + " |")


def _opens(size: int) -> str:
    return f"open {size:,} spans"


def _of(look: Callable[[int], None], size: int) -> Callable[[], None]:
    return lambda: look(size)


def _id(size: int) -> str:
    return wide_trace(size, 0)[0].trace_id


if __name__ == "__main__":
    main(sys.argv[1])
