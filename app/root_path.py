"""Support a proxy that serves the service under a path."""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Tells the app its root path, and removes it from requests if the proxy has not done so."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        if scope["type"] == "http":
            path = scope["path"]
            if path == self._path or path.startswith(f"{self._path}/"):
                path = path.removeprefix(self._path) or "/"
            scope = {**scope, "root_path": self._path, "path": path}
        await self._app(scope, receive, send)
