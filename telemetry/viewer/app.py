"""The viewer as an ASGI application."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from sqlite3 import DatabaseError, OperationalError

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from telemetry.settings import unusable
from telemetry.viewer import api, pages
from telemetry.viewer.settings import Settings
from telemetry.viewer.store import Store

LOOPBACK = ["127.0.0.1", "localhost", "::1"]
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(settings: Settings) -> FastAPI:
    """Return the viewer; its file is open from the application's startup to its shutdown."""
    # A backend that traced itself would feed itself.
    silent: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    app = FastAPI(title="Local trace viewer", lifespan=_open_store, telemetry=silent, openapi_url=None)
    app.state.settings = settings
    for router in (api.health, api.router, pages.router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.middleware("http")(_add_headers)
    if settings.loopback:
        # A page from elsewhere whose name is made to resolve to this machine must not read traces.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(OperationalError, _try_later)
    return app


@asynccontextmanager
async def _open_store(app: FastAPI) -> AsyncIterator[None]:
    with closing(_store(app.state.settings)) as app.state.store:
        yield


def _store(settings: Settings) -> Store:
    try:
        return Store(settings.db, settings.max_bytes)
    except (OSError, DatabaseError) as error:
        raise unusable(f"VIEWER_DB={settings.db}", error, "name a file that can be written") from error


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these alone; only the type says otherwise
    return JSONResponse({"message": error.detail}, error.status_code, error.headers)


def _refuse_parameters(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    problem = error.errors()[0]
    return JSONResponse({"message": f"{problem['loc'][-1]}: {problem['msg']}."}, 400)


def _try_later(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": f"The viewer cannot use its file now: {error}."}, 503)
