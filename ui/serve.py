"""Serve the chat: `python -m streamlit run ui/serve.py` from the project's root."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.starlette import App

import telemetry
from telemetry.browser_guard import BrowserGuard, ResponseHeaders
from telemetry.settings import SettingsError
from ui.deletions import deletions
from ui.settings import load_settings
from ui.turn_registry import turn_registry

# The address of an image in an answer could carry away what the model has read: browsers ask no other host for
# anything. Streamlit's own scripts are inline and compile others. No other page may show this one in a frame.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)
METRICS = "/_stcore/metrics"


class WithoutMetrics:
    """Serves nobody Streamlit's metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request unless it asks for them."""
        app = refuse(404, "There are no metrics.") if scope.get("path", "").endswith(METRICS) else self._app
        await app(scope, receive, send)


def refuse(status: int, sentence: str) -> PlainTextResponse:
    """Return the answer to a request that is refused."""
    return PlainTextResponse(sentence, status)


def middleware() -> list[Middleware]:
    """Return what every request passes; where nobody is asked who they are, pages of other sites are kept out."""
    always = [Middleware(ResponseHeaders, headers={"Content-Security-Policy": POLICY}), Middleware(WithoutMetrics)]
    try:
        settings = load_settings()
    except SettingsError:
        return always  # the page says what is wrong
    if settings.user_id_header or (st.secrets.load_if_toml_exists() and "auth" in st.secrets):
        return always
    return [*always, Middleware(BrowserGuard, refuse=refuse, hosts=settings.allowed_hosts)]


@asynccontextmanager
async def lifespan(_: App) -> AsyncIterator[None]:
    """Stop the turns and the tracing with the server: on a signal the process skips its exit handlers."""
    yield
    await asyncio.to_thread(deletions().stop)
    await asyncio.to_thread(turn_registry().stop)
    await asyncio.to_thread(telemetry.shutdown)


app = App(Path(__file__).with_name("page.py"), lifespan=lifespan, middleware=middleware())
