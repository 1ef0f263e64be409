"""What an ASGI application is wrapped in: a context for each request, the name of its route, the end of its life."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUEST = otel.create_key("telemetry-request")


@dataclass(slots=True)
class _Request:
    """A request that is being served, or has been."""

    server: Any
    kind: str
    is_answered: bool = False


class RequestContext:
    """Serves a request outside the context of the previous request of its connection.

    A server may start the next request of a connection inside the call that ends the previous one, or inside the event
    for which it waited for that one's body: the next request would be in its trace, with its session and user.
    """

    def __init__(self, app: "ASGIApp") -> None:
        # FastAPI looks along this name for the instrumentor's middleware, which it makes room for.
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve the request."""
        before, request = otel.get_value(_REQUEST), _Request(scope.get("server"), scope["type"])
        outside = Context() if _precedes(before, request) else otel.get_current()
        token = otel.attach(otel.set_value(_REQUEST, request, outside))

        async def noting_the_end(message: "Message") -> None:
            # Before sending, because the server may start the next request inside `send`.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                request.is_answered = True
            await send(message)

        try:
            await self.app(scope, receive, noting_the_end)
        finally:
            request.is_answered = True
            otel.detach(token)


class RouteName:
    """Names a request's span by its route, if the router of the application says which one it was."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve the request; name its span."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        span = get_current_span()

        async def named(message: "Message") -> None:
            # Before the end of the answer, with which the span ends. Before its beginning no route is known.
            if message["type"] in ("http.response.start", "websocket.accept") and (route := _route(scope)):
                span.update_name(f"{scope.get('method', 'GET')} {route}")
                span.set_attribute("http.route", route)
            await send(message)

        await self.app(scope, receive, named)


def _route(scope: "Scope") -> str | None:
    # Litestar says it. Starlette says which route it was, or before release 1 only which function has answered.
    routes, endpoint = getattr(scope.get("router"), "routes", ()), scope.get("endpoint")
    matching = (route for route in routes if endpoint and getattr(route, "endpoint", None) is endpoint)
    route = scope.get("route") or next(matching, None)
    return scope.get("path_template") or getattr(route, "path", None)


class Lifespan:
    """Runs `begin` when an application starts, and `drain` and `end` around its own end.

    An application that does not know of a lifespan gets one.
    """

    def __init__(
        self,
        app: "ASGIApp",
        begin: Callable[[], Awaitable[None]],
        drain: Callable[[], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self.app = app
        self._begin, self._drain, self._end = begin, drain, end

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request, or the application's life."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        has_answered = False

        async def draining() -> "Message":
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._drain()
            return message

        async def noting(message: "Message") -> None:
            nonlocal has_answered
            has_answered = True
            if message["type"].startswith("lifespan.shutdown.") or message["type"] == "lifespan.startup.failed":
                await self._end()
            await send(message)

        await self._begin()
        try:
            await self.app(scope, draining, noting)
        except Exception:
            if has_answered:
                raise
        if not has_answered:
            await self._serve(draining, noting)

    async def _serve(self, receive: "Receive", send: "Send") -> None:
        while (await receive())["type"] != "lifespan.startup":
            pass
        await send({"type": "lifespan.startup.complete"})
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        await send({"type": "lifespan.shutdown.complete"})


def is_websocket() -> bool:
    """Return whether the current code serves a WebSocket."""
    request = otel.get_value(_REQUEST)
    return isinstance(request, _Request) and request.kind == "websocket"


def _precedes(before: object, request: _Request) -> bool:
    # A request of the application to itself, over another connection, is part of the current one, even after the
    # response. The client's address does not help: behind a proxy many clients share a connection.
    return isinstance(before, _Request) and before.is_answered and before.server == request.server
