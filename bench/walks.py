"""Count our files and functions that run for a span, a turn, a score and a background run: `python -m bench.walks`.

A reader who follows one of them through the code opens this many. All functions count that run from its start to its
end, in any thread. A first run is not counted, and so neither is one-time initialisation.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import httpx
import uvicorn

ROOT = Path(__file__).parent.parent
PACKAGES = tuple(f"{ROOT / package}{os.sep}" for package in ("telemetry", "app"))
QUESTION = {"message": "What is 12*34?"}


class Walk:
    """Collect our functions that are called while it is on."""

    def __init__(self) -> None:
        self.called: set[CodeType] = set()
        self.on = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call, as a profile function."""
        if self.on and event == "call" and frame.f_code.co_filename.startswith(PACKAGES):
            self.called.add(frame.f_code)

    def line(self, name: str) -> str:
        """Return the counts as a line of the table."""
        functions = [code for code in self.called if not code.co_name.startswith("<")]
        files = {code.co_filename for code in functions}
        return f"{name:<32}{len(files):>6} files{len(functions):>6} functions"


class Backend(BaseHTTPRequestHandler):
    """Accept spans and scores, and note their paths."""

    protocol_version = "HTTP/1.1"
    taken: list[str] = []  # noqa: RUF012 - the one list of the one server

    def do_POST(self) -> None:
        """Accept the request."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append(self.path)
        self._answer(b'{"id": "1"}')

    def do_GET(self) -> None:
        """Return the project."""
        self._answer(b'{"data": [{"id": "p", "name": "p", "organization": {"id": "o", "name": "o"}, "metadata": {}}]}')

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Log nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Print the table."""
    walk = Walk()
    threading.setprofile(walk)
    sys.setprofile(walk)
    with backend() as url, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ |= {
            "LANGFUSE_HOST": url,
            "LANGFUSE_PUBLIC_KEY": "pk-lf-walk",
            "LANGFUSE_SECRET_KEY": "sk-lf-walk",
            "TELEMETRY_SPOOL_DIR": f"{folder}/spool",
            "TELEMETRY_LANGCHAIN": os.environ.get("TELEMETRY_LANGCHAIN", "recorder"),
        }
        with service(folder) as (client, span):
            for name, step in (
                ("a finished span to the wire", span),
                ("a streamed turn with one tool", lambda: stream(client)),
                ("a feedback score", score(client)),
                ("a background run", lambda: background(client)),
            ):
                step()
                time.sleep(1.5)
                walk.called.clear()
                walk.on = True
                step()
                walk.on = False
                print(walk.line(name))


@contextmanager
def backend() -> Iterator[str]:
    """Run a backend in this process and yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@contextmanager
def service(folder: str) -> Iterator[tuple[httpx.Client, Callable[[], None]]]:
    """Run the service in this process; yield a client, and a function that ends a span and waits until it is sent."""
    from opentelemetry import trace

    import telemetry
    from app.service import create_app
    from app.settings import ServiceSettings

    telemetry.configure("walks")
    app = create_app(ServiceSettings.model_validate({"DATA_DIR": folder, "DEMO_PACE_S": 0}))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    tracer = trace.get_tracer("walks")

    def span() -> None:
        taken("traces", lambda: tracer.start_span("one", attributes={"input.value": "What is 12*34?"}).end())

    with telemetry.suppress_instrumentation(), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client, span
    server.should_exit = True
    thread.join()


def taken(what: str, action: Callable[[], Any]) -> None:
    """Perform the action, and wait until the backend has received something of this kind."""
    before = sum(what in path for path in Backend.taken)
    action()
    while sum(what in path for path in Backend.taken) == before:
        time.sleep(0.02)


def stream(client: httpx.Client) -> None:
    """Run a streamed turn, and read it to its end."""
    taken("traces", lambda: client.post("/stream", json=QUESTION).raise_for_status())


def score(client: httpx.Client) -> Callable[[], None]:
    """Run a turn, and return a function that scores its answer."""
    run = client.post("/invoke", json=QUESTION).raise_for_status().json()["run_id"]
    feedback = {"run_id": run, "key": "thumbs", "score": 1.0}
    return lambda: taken("scores", lambda: client.post("/feedback", json=feedback).raise_for_status())


def background(client: httpx.Client) -> None:
    """Run a turn in the background."""
    run = client.post("/chatbot/runs", json=QUESTION).raise_for_status().json()["run_id"]
    while client.get(f"/runs/{run}").json()["status"] not in ("completed", "failed"):
        time.sleep(0.05)


if __name__ == "__main__":
    main()
