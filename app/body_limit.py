"""A limit on the size of request bodies, whether they declare their length or not."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Refuses a request with 413 once its body is larger than `limit` bytes, or than the limit of its path."""

    def __init__(self, app: ASGIApp, limit: int, limits: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._limit = limit
        self._limits = limits or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, counting the bytes of its body."""
        limit = self._limits.get(scope.get("path", ""), self._limit)
        length = 0

        async def counted() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > limit:
                raise HTTPException(413, f"The request is larger than {limit:,} bytes: send less.")
            return message

        await self._app(scope, counted, send)
