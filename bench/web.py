"""The cost of a request that is answered by 200 events, and of a call with httpx."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from bench.backend import Backend
from bench.cells import Cell
from bench.tracing import Tracing
from bench.turns import timed

EVENTS = 200
CALLS = {"sse": 120, "httpx": 300}
PARTS = 6


def measure(cell: Cell, tracing: Tracing, backend: Backend) -> dict[str, Any]:
    """Return the figures of one request or call."""
    return asyncio.run(_measure(cell, tracing, backend))


async def _measure(cell: Cell, tracing: Tracing, backend: Backend) -> dict[str, Any]:
    app = _app(tracing)
    async with httpx.AsyncClient(trust_env=False) as client:

        async def call() -> None:
            await (_request(app) if cell.mode == "sse" else client.get(f"{backend.endpoint}/plain"))

        calls = CALLS[cell.mode]
        for _ in range(calls // 10):
            await call()
        await asyncio.to_thread(tracing.flush)
        backend.counted()
        parts: list[dict[str, float]] = []
        for _ in range(PARTS):
            cpu, loop = time.process_time(), time.thread_time()
            for _ in range(calls // PARTS):
                await call()
            loop = time.thread_time() - loop
            await asyncio.to_thread(tracing.flush)
            parts.append({"cpu": time.process_time() - cpu, "loop": loop, "turns": calls // PARTS})
    got = backend.counted()
    return {
        **timed(parts),
        "kb": got["bytes"] / calls / 1e3,
        "kb_sent": got["sent"] / calls / 1e3,
        "spans": got["spans"] / calls,
        "turns": calls,
    }


def _app(tracing: Tracing) -> FastAPI:
    app = FastAPI()

    async def events() -> AsyncIterator[str]:
        for number in range(EVENTS):
            yield f"data: {number}\n\n"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    tracing.serve(app)
    return app


async def _request(app: FastAPI) -> None:
    """Ask as a server does, without one: a socket would cost more than what is measured."""
    sent: list[Any] = []
    asked = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            await asyncio.Event().wait()
        asked.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/stream",
        "raw_path": b"/stream",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    if len(sent) < EVENTS:
        raise RuntimeError(f"only {len(sent)} messages were sent")
