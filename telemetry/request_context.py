"""Each request in a context of its own, whatever its connection has served before."""

from threading import Event
from typing import TYPE_CHECKING

from opentelemetry import context as otel
from opentelemetry.context import Context

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

_OVER = otel.create_key("telemetry-request-over")


class RequestContext:
    """Serves a request outside of any that is over.

    A server that has paused the reading of a large body goes on in the context of that request, and serves the
    connection's next ones there: they would stand in its trace, with its session and its user.
    """

    def __init__(self, app: "ASGIApp") -> None:
        # FastAPI looks along this name for the instrumentor's middleware, which it makes room for.
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve the request."""
        before, over = otel.get_value(_OVER), Event()
        outside = Context() if isinstance(before, Event) and before.is_set() else otel.get_current()
        token = otel.attach(otel.set_value(_OVER, over, outside))
        try:
            await self.app(scope, receive, send)
        finally:
            over.set()
            otel.detach(token)


def serve_apart(app: "FastAPI") -> None:
    """Put the requests of this app into contexts of their own, outside of all its middleware."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: RequestContext(build())
