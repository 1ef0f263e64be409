"""What a connection has served before is no part of its next request."""

import asyncio
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.middleware.gzip import GZipMiddleware
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

import telemetry
from telemetry.testing import Recorded
from tests.nginx import nginx
from tests.parts import missing
from tests.processes import free_port, serve

# More than a server takes from its socket before somebody reads it.
LARGE = b"a" * 5_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"


def make_app() -> FastAPI:
    app = FastAPI()

    @app.post("/upload")
    async def upload(request: Request) -> int:
        with telemetry.scope(session_id="t-ada", user_id="ada"), telemetry.span("upload"):
            return len(await request.body())

    @app.get("/next")
    async def next_one() -> None:
        telemetry.event("happened")

    telemetry.instrument(app)
    return app


@pytest.mark.parametrize("sampled", ["00", "01"])
def test_a_large_body_leaves_nothing_on_its_connection(spans: Recorded, sampled: str) -> None:
    """The request behind an upload, on the same connection, has its own trace and nobody's session, sampled or not."""
    caller = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-{sampled}"}
    with (
        serve(make_app()) as url,
        telemetry.suppress_instrumentation(),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert client.post("/upload", content=LARGE, headers=caller).json() == len(LARGE)
        for _ in range(2):
            assert client.get("/next").is_success

    behind = [span for span in spans.settled() if span.name in ("GET /next", "happened")]
    assert len(behind) == 4
    assert len({_trace(span) for span in behind} - {int(TRACE, 16)}) == 2
    assert spans.tree().count("GET /next") == 2
    assert not [name for span in behind for name in span.attributes or {} if name in ("session.id", "user.id")]


@pytest.mark.anyio
async def test_a_request_within_its_caller_stays_there(spans: Recorded) -> None:
    """A request that its caller's own task serves belongs to the caller's trace."""
    here = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=here, base_url="http://here") as client:
        with telemetry.span("caller"):
            assert (await client.get("/next")).is_success

    assert len({_trace(span) for span in spans.settled()}) == 1


SERVERS = [{"loop": "asyncio", "http": "h11"}, {"loop": "uvloop", "http": "httptools"}]


def greeting_app(kind: str) -> FastAPI:
    """An app that greets by name, behind a middleware of this kind, or mounted in another app."""
    app = FastAPI()

    @app.get("/{who}")
    async def greet(who: str, tasks: BackgroundTasks) -> str:
        with telemetry.scope(user_id=who), telemetry.span("greet"):
            await asyncio.sleep(0.001)
        tasks.add_task(asyncio.sleep, 0.002)
        return who

    if kind == "function":

        @app.middleware("http")
        async def pass_on(request: Request, call_next: Any) -> Any:
            return await call_next(request)

    if kind == "class":
        app.add_middleware(GZipMiddleware)
    if kind == "mounted":
        outer = FastAPI()
        outer.mount("/", app)
        app = outer
    telemetry.instrument(app)
    return app


def pipeline(url: str, names: Sequence[str]) -> None:
    """Ask for all of these on one connection, before any answer has come."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"".join(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for name in names))
        answered = b""
        while answered.count(b"HTTP/1.1 200") < len(names) or not answered.endswith(f'"{names[-1]}"'.encode()):
            answered += connection.recv(65536)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server["http"])
@pytest.mark.parametrize("kind", ["plain", "function", "class", "mounted"])
def test_each_request_has_its_own_trace(spans: Recorded, kind: str, server: dict[str, str]) -> None:
    """Requests of one connection, pipelined or one after the other, share neither trace nor user."""
    if server["loop"] == "uvloop":
        pytest.importorskip("uvloop")
        pytest.importorskip("httptools")
    names = [f"user-{at}" for at in range(20)]
    with serve(greeting_app(kind), **server) as url, telemetry.suppress_instrumentation():
        with httpx.Client(base_url=url, timeout=60) as client:
            for name in names[:10]:
                # As a proxy does, which serves many over one connection.
                assert client.get(f"/{name}", headers={"X-Forwarded-For": f"10.0.0.{len(name)}"}).json() == name
        pipeline(url, names[10:])

    check_traces(spans, names)


def check_traces(spans: Recorded, names: Sequence[str]) -> None:
    """Each request of these users is a trace, and nothing of another user stands in it."""
    finished = [span for span in spans.settled() if (span.attributes or {}).get("user.id") != "health"]
    requests = [span for span in finished if span.kind is SpanKind.SERVER]
    assert len(requests) == len({_trace(span) for span in requests}) == len(names)
    assert [span for span in requests if span.parent] == []
    users: dict[int, set[str]] = {}
    for span in finished:
        users.setdefault(_trace(span), set()).add(str((span.attributes or {}).get("user.id")))
    assert sorted(map(sorted, users.values())) == sorted([name] for name in names)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server["http"])
async def test_a_thousand_requests_over_ten_connections_have_a_trace_each(
    spans: Recorded, server: dict[str, str]
) -> None:
    """As from a front end's pool: a connection serves a hundred users, one after the other."""
    if server["loop"] == "uvloop":
        pytest.importorskip("uvloop")
        pytest.importorskip("httptools")
    names = [f"user-{at}" for at in range(1_000)]
    with serve(greeting_app("function"), **server) as url, telemetry.suppress_instrumentation():
        host, port = url.removeprefix("http://").split(":")
        await asyncio.gather(*[_ask(host, int(port), names[at::10]) for at in range(10)])

    check_traces(spans, names)


async def _ask(host: str, port: int, names: Sequence[str]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for name in names:
        writer.write(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert await reader.readexactly(length) == f'"{name}"'.encode()
    writer.close()


def test_requests_of_one_http2_connection_have_a_trace_each(spans: Recorded, tmp_path: Path) -> None:
    """Through a proxy, which passes them on over two kept connections."""
    curl = shutil.which("curl") or missing("curl", "apt install curl")
    names, port = [f"user-{at}" for at in range(50)], free_port()
    site = 'proxy_http_version 1.1; proxy_set_header Connection "";'
    with (
        telemetry.suppress_instrumentation(),
        serve(greeting_app("function")) as direct,
        nginx(tmp_path, direct, site, http2_port=port),
    ):
        command = [curl, "--silent", "--fail", "--insecure", "--http2", "--parallel", "--write-out", "%{http_version} "]
        done = subprocess.run(
            [*command, f"https://127.0.0.1:{port}/user-[0-49]"], capture_output=True, text=True, timeout=120, check=True
        )

    assert done.stdout.count("2 ") == len(names)
    check_traces(spans, names)


async def test_what_a_background_task_calls_is_part_of_its_request(spans: Recorded) -> None:
    """A task that calls another application, once its request is answered, does so within its trace."""
    other, app, done = make_app(), FastAPI(), threading.Event()

    async def call() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(other), base_url="http://here") as client:
            await client.get("/next")
        done.set()

    @app.get("/first")
    async def first(tasks: BackgroundTasks) -> None:
        tasks.add_task(call)

    telemetry.instrument(app)
    with serve(app) as url:
        with telemetry.suppress_instrumentation():
            await asyncio.to_thread(httpx.get, f"{url}/first", timeout=60)
        assert await asyncio.to_thread(done.wait, 60)

    assert len({_trace(span) for span in spans.settled() if span.name in ("GET /first", "happened")}) == 1


def _trace(span: ReadableSpan) -> int:
    assert span.context
    return span.context.trace_id
