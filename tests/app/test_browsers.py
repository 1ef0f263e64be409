"""What a browser's pages can do to a service that asks nobody who they are."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service import service

APP = "https://app.example"
UNSAFE = [("POST", "/runs/r-1/cancel"), ("POST", "/files?thread_id=t"), ("DELETE", "/threads/t-1"), ("POST", "/invoke")]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with service(tmp_path, ALLOWED_HOSTS="agents.test", CORS_ORIGINS=APP) as address:
        yield address


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("127.1.2.3", 200),
        ("localhost:{port}", 200),
        ("[::1]:{port}", 200),
        ("agents.test", 200),
        ("evil.example", 400),
        ("evil.example:{port}", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("10.0.0.1", 400),
        ("", 400),
    ],
)
def test_a_foreign_name_is_refused(url: str, host: str, status: int) -> None:
    """A page whose name points at this machine reads nothing; loopback's names and those of the setting are served."""
    answer = httpx.get(f"{url}/threads", headers={"Host": host.format(port=url.rsplit(":", 1)[1])})
    assert answer.status_code == status
    assert status == 200 or "ALLOWED_HOSTS" in answer.json()["detail"]


def test_a_foreign_name_beside_ours_is_refused(url: str) -> None:
    """Whichever of two names another server would take, this one takes neither."""
    port = int(url.rsplit(":", 1)[1])
    for names in (("localhost", "evil.example"), ("evil.example", "localhost")):
        head = "".join(f"Host: {name}\r\n" for name in names)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET /threads HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(("method", "path"), UNSAFE)
def test_a_page_of_another_site_changes_nothing(url: str, method: str, path: str, headers: dict[str, str]) -> None:
    """Forms and requests of other sites are refused before anything is done."""
    answer = httpx.request(method, url + path, headers=headers)
    assert answer.status_code == 403
    assert "CORS_ORIGINS" in answer.json()["detail"]


@pytest.mark.parametrize("headers", [{}, {"Origin": APP}, {"Origin": "own"}, {"Sec-Fetch-Site": "same-origin"}])
def test_everybody_else_is_served(url: str, headers: dict[str, str]) -> None:
    """Programs send no origin; the service's own pages and those of the setting may call it."""
    headers = {name: url if value == "own" else value for name, value in headers.items()}
    assert httpx.post(f"{url}/runs/r-1/cancel", headers=headers).status_code == 404


def test_with_credentials_the_browser_is_no_danger(tmp_path: Path) -> None:
    """A service that asks for a secret is called by any name, and nothing is sent by a browser on its own."""
    secret = "s" * 32
    with service(tmp_path, AUTH_SECRET=secret) as address:
        headers = {"Host": "agents.example", "Origin": "https://evil.example", "Authorization": f"Bearer {secret}"}
        assert httpx.post(f"{address}/runs/r-1/cancel", headers=headers).status_code == 404
        assert httpx.post(f"{address}/runs/r-1/cancel", headers={"Origin": "https://evil.example"}).status_code == 401


def test_cors(url: str) -> None:
    """A browser is told that pages of the setting's origins may call, and no others."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = httpx.options(f"{url}/stream", headers={"Origin": APP, **asked})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, APP)
    assert httpx.options(f"{url}/stream", headers={"Origin": "https://evil.example", **asked}).status_code == 400
    assert httpx.get(f"{url}/info", headers={"Origin": APP}).headers["access-control-allow-origin"] == APP


def test_below_a_path(tmp_path: Path) -> None:
    """Behind a proxy that serves it under a path, and cuts it off or not, everything is found."""
    with service(tmp_path, ROOT_PATH="/api") as address:
        assert "'/api/openapi.json'" in httpx.get(f"{address}/docs").text
        for prefix in ("", "/api"):
            assert httpx.get(f"{address}{prefix}/info").status_code == 200
            file = {"file": ("a.txt", b"x" * 2_000_000)}
            assert httpx.post(f"{address}{prefix}/files?thread_id=t", files=file).status_code == 201
        assert httpx.get(f"{address}/apiary/info").status_code == 404


def test_head_of_health(url: str) -> None:
    """Load balancers that ask with HEAD see that the service lives."""
    answer = httpx.head(f"{url}/health")
    assert (answer.status_code, answer.content) == (200, b"")
