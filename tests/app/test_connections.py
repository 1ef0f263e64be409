"""What strangers can hold open, as the process that serves sees it."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.processes import Process, free_port, start, until


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., tuple[Process, str]]]:
    """Starts the service with these limits of time and of descriptors."""
    with ExitStack() as stack:

        def started(*limits: float, descriptors: int = 256) -> tuple[Process, str]:
            port = free_port()
            argv = [sys.executable, "-m", "tests.limited_service", *map(str, (descriptors, *limits))]
            env = {"PORT": str(port), "DATA_DIR": str(tmp_path), "LANGFUSE_TRACING": "false"}
            url = f"http://127.0.0.1:{port}"
            return stack.enter_context(start(argv, env, f"{url}/health")), url

        yield started


def _connect(url: str, sent: bytes = b"") -> socket.socket:
    where = urlsplit(url)
    made = socket.create_connection((where.hostname, where.port), timeout=60)
    made.sendall(sent)
    return made


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


def test_idle_connections_keep_nobody_out(run: Callable[..., tuple[Process, str]]) -> None:
    """300 connections that send nothing, more than the process may have: it answers, and says so in a line."""
    process, url = run(600, 600, 600)
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(_connect(url))
        for _ in range(5):
            assert httpx.get(f"{url}/health", trust_env=False, timeout=60).status_code == 200

        assert process.log.count("too many connections") == 1
        assert len(process.log) < 10_000


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /hea",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"POST /invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n",
        b'POST /invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{"mess',
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /",
    ],
    ids=["nothing", "half a line", "half of the headers", "no body", "half of a body", "half of a second request"],
)
def test_who_sends_nothing_is_left(run: Callable[..., tuple[Process, str]], sent: bytes) -> None:
    """Wherever a client stops, its connection is closed, without a traceback."""
    process, url = run(0.5, 0.5, 600)
    with _connect(url, sent) as connection:
        until(lambda: _is_closed(connection))

    assert httpx.get(f"{url}/health", trust_env=False, timeout=60).status_code == 200
    assert "Traceback" not in process.log


def test_who_leaves_in_its_body_is_no_error(run: Callable[..., tuple[Process, str]]) -> None:
    """A body that ends before its end, or goes on as no chunk, is the client's affair: no traceback, on any route."""
    process, url = run(600, 600, 600)
    for path in ("/invoke", "/files?thread_id=t", "/otlp/v1/traces", "/feedback"):
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        for rest in ("Content-Length: 50\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nno chunk\r\n"):
            with _connect(url, f"{head}{rest}".encode()) as connection:
                connection.shutdown(socket.SHUT_WR)
                until(lambda: _is_closed(connection))
        assert httpx.get(f"{url}/health", trust_env=False, timeout=60).status_code == 200

    assert "Traceback" not in process.log
    assert "a request failed" not in process.log


@pytest.mark.parametrize(
    ("begin", "limits"),
    [
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", (1, 600, 600)),
        (b"POST /invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\n", (600, 600, 1)),
    ],
    ids=["headers", "body"],
)
def test_a_byte_at_a_time_gains_no_time(
    run: Callable[..., tuple[Process, str]], begin: bytes, limits: tuple[float, ...]
) -> None:
    """A client that drips has the time of any other."""
    _, url = run(*limits)
    with _connect(url, begin) as connection:
        connection.settimeout(0.05)

        def is_given_up() -> bool:
            try:
                connection.sendall(b"x")
                return _is_closed(connection)
            except TimeoutError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True

        until(is_given_up)


def test_a_slow_answer_is_waited_for(run: Callable[..., tuple[Process, str]]) -> None:
    """The limits are the client's: an answer that takes longer than they are is sent to its end."""
    _, url = run(0.2, 0.2, 0.2)
    story = {"message": "Tell me a story of 60 words"}
    with httpx.stream("POST", f"{url}/stream", json=story, trust_env=False, timeout=60) as answer:
        lines = list(answer.iter_lines())

    assert "data: [DONE]" in lines[-3:]
