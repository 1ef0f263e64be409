"""The chat as a server: `python -m streamlit run ui/serve.py` from the project's root."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.starlette import App

import telemetry
from ui.turns import turns

# A model's words may show an image from anywhere, with what it has read in the address: browsers fetch none of those.
POLICY = "img-src 'self' data: blob:; media-src 'self' data: blob:"


class ContentPolicy:
    """Tells browsers from where a page may load what it shows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, with the policy among the headers."""

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self._app(scope, receive, with_policy)


@asynccontextmanager
async def lifespan(_: App) -> AsyncIterator[None]:
    """End the turns and the tracing with the server: a signal ends the process without what is due at its exit."""
    yield
    await asyncio.to_thread(turns().stop)
    await asyncio.to_thread(telemetry.shutdown)


app = App(Path(__file__).with_name("page.py"), lifespan=lifespan, middleware=[Middleware(ContentPolicy)])
