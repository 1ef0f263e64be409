"""Measure a request that is answered with 200 events, and a call with httpx."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from bench.matrix import Cell
from bench.sink import SinkClient
from bench.turns import cpu_times
from bench.variants import Tracing

EVENTS = 200
CALLS = {"sse": 120, "httpx": 300}
PARTS = 6


def measure(cell: Cell, tracing: Tracing, sink: SinkClient) -> dict[str, Any]:
    """Return the figures of one request or call."""
    return asyncio.run(_measure(cell, tracing, sink))


async def _measure(cell: Cell, tracing: Tracing, sink: SinkClient) -> dict[str, Any]:
    app = _app(tracing)
    async with httpx.AsyncClient(trust_env=False) as client:

        async def call() -> None:
            await (_request(app) if cell.mode == "sse" else client.get(f"{sink.endpoint}/plain"))

        calls = CALLS[cell.mode]
        for _ in range(calls // 10):
            await call()
        await asyncio.to_thread(tracing.flush)
        sink.read_counts()
        parts: list[dict[str, float]] = []
        for _ in range(PARTS):
            cpu, loop = time.process_time(), time.thread_time()
            for _ in range(calls // PARTS):
                await call()
            loop = time.thread_time() - loop
            await asyncio.to_thread(tracing.flush)
            parts.append({"cpu": time.process_time() - cpu, "loop": loop, "turns": calls // PARTS})
    counts = sink.read_counts()
    return {
        **cpu_times(parts),
        "kb": counts["bytes"] / calls / 1e3,
        "kb_sent": counts["sent"] / calls / 1e3,
        "spans": counts["spans"] / calls,
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
    """Call the application as a server does: a socket would cost more than the measured code."""
    sent: list[Any] = []
    requested = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if requested.is_set():
            await asyncio.Event().wait()
        requested.set()
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
