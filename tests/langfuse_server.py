"""A Langfuse for tests, which can be out of order: the viewer behind a door."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.viewer.app import create_app
from telemetry.viewer.settings import ViewerSettings
from tests.processes import serve

SCORES = "/api/public/scores"


class Langfuse:
    """The server and its keys; `status` is what it answers to scores instead of taking them, `taken` what it took.

    With `forgets` it takes the score first: the acknowledgement is lost. Without `lists` it is one of the servers that
    take one score at a time, and behind a `login` all it answers is a page.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, str]) -> None:
        self.url = ""
        self.keys = keys
        self.status: int | None = None
        self.forgets = False
        self.lists = True
        self.login = False
        self.slow_s = 0.0
        self.asked: list[Any] = []
        self.taken: list[Any] = []
        self._app = app

    @property
    def env(self) -> dict[str, str]:
        """The variables of a process that scores here."""
        return {
            "LANGFUSE_HOST": self.url,
            "LANGFUSE_PUBLIC_KEY": self.keys[0],
            "LANGFUSE_SECRET_KEY": self.keys[1],
        }

    def scores(self, trace_id: str) -> list[dict[str, Any]]:
        """The scores of a trace, as its API reads them back."""
        query: dict[str, Any] = {"traceId": trace_id, "fields": "details,subject", "limit": 100}
        found: list[dict[str, Any]] = []
        while True:
            page = self.get("/api/public/v3/scores", **query)
            found += page["data"]
            if not (cursor := page["meta"].get("cursor")):
                return found
            query["cursor"] = cursor

    def get(self, path: str, **query: Any) -> Any:
        """What it answers to a question."""
        answer = httpx.get(self.url + path, params=query, auth=self.keys, trust_env=False, timeout=30)
        return answer.raise_for_status().json()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, in this mood."""
        if not str(scope.get("path", "")).startswith(SCORES):
            return await self._app(scope, receive, send)
        body = await read_body(receive) if scope["method"] == "POST" else b""
        content = json.loads(body) if body else scope["path"]
        self.asked.append(content)
        await asyncio.sleep(self.slow_s)
        if isinstance(content, list) and not self.lists:
            problem = {"message": "Invalid request data", "error": "expected object, received array"}
            return await JSONResponse(problem, 400)(scope, receive, send)
        if self.login:
            return await HTMLResponse("<html>Log in</html>")(scope, receive, send)
        if self.status and self.forgets:
            await self._app(scope, _again(body), _nowhere)
        if self.status:
            return await JSONResponse({"message": "out of order"}, self.status)(scope, receive, send)
        self.taken.append(content)
        return await self._app(scope, _again(body), send)


@contextmanager
def langfuse_server(folder: Path, **delays: float) -> Iterator[Langfuse]:
    """A running one; its public key is its own, since the SDK keeps one client a key for the whole process."""
    keys_and_file = {"db": folder / "langfuse.db", "public_key": f"pk-lf-{token_hex(4)}"}
    settings = ViewerSettings.model_validate({**keys_and_file, **delays})
    server = Langfuse(create_app(settings), (settings.public_key, settings.secret_key.get_secret_value()))
    with serve(server) as server.url:
        yield server


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _again(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _nowhere(_: Message) -> None:
    pass
