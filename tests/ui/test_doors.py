"""What pages of other sites can do with the chat of somebody who has to log in nowhere."""

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import pytest
from playwright.sync_api import Page
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.ui.stack import Stack, answered, say
from ui.serve import middleware, refuse

T = TypeVar("T")


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await refuse(200, "served")(scope, receive, send)


def _guarded() -> ASGIApp:
    app: ASGIApp = _serve
    for each in reversed(middleware()):
        app = each.cls(app, *each.args, **each.kwargs)
    return app


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own: Playwright's loop may be running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def _ask(method: str, path: str, headers: Mapping[str, str]) -> httpx.Response:
    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(_guarded())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8501") as client:
            return await client.request(method, path, headers=headers)

    return _run(answer())


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/", {"Host": "localhost:8501", "Sec-Fetch-Site": "cross-site"}, 200),
        ("GET", "/", {"Host": "evil.example"}, 400),
        ("GET", "/", {"Host": "127.0.0.1.evil.example:8501"}, 400),
        ("PUT", "/_stcore/upload_file/a/b", {"Origin": "http://127.0.0.1:8501"}, 200),
        ("PUT", "/_stcore/upload_file/a/b", {"Origin": "https://evil.example"}, 403),
        ("POST", "/", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/_stcore/metrics", {}, 404),
    ],
)
def test_requests_of_other_pages_are_refused(method: str, path: str, headers: dict[str, str], status: int) -> None:
    """A rebound page and one of another site get nothing; no other page may show this one; nobody gets the metrics."""
    answer = _ask(method, path, headers)

    assert answer.status_code == status
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "origin", "first"),
    [
        ("127.0.0.1:8501", "http://127.0.0.1:8501", "websocket.accept"),
        ("evil.example:8501", "http://evil.example:8501", "websocket.close"),
        ("127.0.0.1:8501", "https://evil.example", "websocket.close"),
    ],
)
def test_sockets_of_other_pages_are_refused(host: str, origin: str, first: str) -> None:
    """The chat itself runs over a socket, which a rebound page opens under its own name."""
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    async def receive() -> Message:
        raise AssertionError

    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    scope: dict[str, Any] = {"type": "websocket", "path": "/_stcore/stream", "headers": headers}

    async def open_socket() -> None:
        await _guarded()(scope, receive, send)

    _run(open_socket())
    assert sent == [first]


def test_a_login_or_a_name_opens_the_chat_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a name of the setting it is served, and under any where a proxy says who it is."""
    monkeypatch.setenv("ALLOWED_HOSTS", "chat.test, other.test")
    assert _ask("GET", "/", {"Host": "chat.test"}).status_code == 200
    assert _ask("GET", "/", {"Host": "evil.example"}).status_code == 400
    monkeypatch.setenv("USER_ID_HEADER", "X-Remote-User")
    assert _ask("GET", "/", {"Host": "evil.example"}).status_code == 200


def test_the_page_asks_no_other_host(stack: Stack, tab: Page) -> None:
    """All that the browser fetches for an answer is the chat's own, and the policy keeps nothing of it away."""
    hosts: set[str] = set()
    refused: list[str] = []
    tab.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
    tab.on("console", lambda message: refused.append(message.text) if "Security Policy" in message.text else None)
    tab.goto(stack.page)
    say(tab, "What is $a^2$?")
    answered(tab, 1)

    assert hosts - {""} == {"127.0.0.1"}
    assert refused == []
