"""No request body grows beyond a limit, whether it says its length or not."""

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _TooLargeError(Exception):
    pass


class BodyLimit:
    """Answers 413 to a request whose body is larger than `limit` bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, self._counted(receive), send)
        except _TooLargeError:
            await self._refuse(send)

    def _counted(self, receive: Receive) -> Receive:
        length = 0

        async def counted() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > self._limit:
                raise _TooLargeError
            return message

        return counted

    async def _refuse(self, send: Send) -> None:
        body = json.dumps({"detail": f"The request is larger than {self._limit:,} bytes: send less."}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})
