"""Protect a server without authentication from web pages in a browser on the same machine."""

from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class BrowserGuard:
    """Refuses requests with a foreign host name, and requests from pages of other sites that would change something.

    After DNS rebinding, a page's requests have its own name in the Host header. A page of another site cannot hide its
    origin: browsers send Origin and Sec-Fetch-Site, other programs send neither. `refuse` makes the answer out of a
    status and a sentence. Without `hosts` any name will do. `prefix` is that of the server's settings.
    """

    def __init__(
        self,
        app: ASGIApp,
        refuse: Callable[[int, str], ASGIApp],
        hosts: Collection[str] | None,
        origins: Collection[str] | None = None,
        prefix: str = "",
    ) -> None:
        self._app = app
        self._refuse = refuse
        self._hosts = hosts
        self._origins = origins
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or refuse it with the reason."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Before it is accepted this is a 403.
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host") or [""]
        host = next((each for each in hosts if not self._is_ours(each)), hosts[0])
        if not self._is_ours(host):
            setting = f"{self._prefix}ALLOWED_HOSTS"
            return self._refuse(400, f"This server is not called {host}: use 127.0.0.1, or name the host in {setting}.")
        is_unsafe = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if is_unsafe and self._is_cross_site(headers, host):
            advice = "." if self._origins is None else f": name its origin in {self._prefix}CORS_ORIGINS."
            return self._refuse(403, f"A page of another site may not send this{advice}")
        return None

    def _is_ours(self, host: str) -> bool:
        if self._hosts is None:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name == "localhost" or name in self._hosts or ip_address(name).is_loopback
        except ValueError:
            return False

    def _is_cross_site(self, headers: Headers, host: str) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            return origin not in (self._origins or ()) and origin.partition("://")[2] != host
        return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


class ResponseHeaders:
    """Adds headers to every response, such as those that say what a page may load and who may show it."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request with the headers in the response."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, with_headers)
