"""The viewer as an ASGI application."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from http import HTTPStatus
from pathlib import Path
from sqlite3 import DatabaseError, OperationalError
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from telemetry.browser_guard import BrowserGuard, ResponseHeaders
from telemetry.settings import unusable
from telemetry.viewer import access, actions, api, compare, datasets, experiments, library_pages, media, pages, prompts
from telemetry.viewer.observation import LIST_PRICES
from telemetry.viewer.prices import read_prices
from telemetry.viewer.render import page
from telemetry.viewer.score_queue import ScoreQueue
from telemetry.viewer.settings import ViewerSettings
from telemetry.viewer.store import Store

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

# They keep a page from loading, or being loaded by, what is not the viewer's.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # With no-referrer, a form of our own pages would come without its origin.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

INVITATION = "Enter the one that you were given: this browser then keeps a cookie for 30 days."


def create_app(settings: ViewerSettings) -> FastAPI:
    """Return the viewer; its file is open from the application's startup to its shutdown."""
    # A backend that traced itself would feed itself. Earlier releases of FastAPI do not, and ignore this.
    silent: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    app = FastAPI(title="Local trace viewer", lifespan=_open_store, telemetry=silent, openapi_url=None)
    app.state.settings = settings
    api_routers = (api.health, api.router, prompts.router, datasets.router, experiments.router, media.router)
    page_routers = (media.page_router, library_pages.router, actions.router, compare.router, pages.router)
    for router in (*api_routers, access.router, *page_routers):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.add_middleware(
        BrowserGuard,
        refuse=lambda status, sentence: JSONResponse({"message": sentence}, status),
        hosts=settings.allowed_hosts if settings.loopback or settings.allowed_hosts else None,
        prefix="VIEWER_",
    )
    app.add_middleware(ResponseHeaders, headers=HEADERS)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(OperationalError, _try_later)
    app.add_exception_handler(ClientDisconnect, _ignore)
    return app


@asynccontextmanager
async def _open_store(app: FastAPI) -> AsyncIterator[None]:
    settings: ViewerSettings = app.state.settings
    with (
        closing(_store(settings)) as app.state.store,
        closing(ScoreQueue(app.state.store, settings.score_delay_s, settings.deletion_interval_s)) as app.state.scores,
    ):
        yield


def _store(settings: ViewerSettings) -> Store:
    try:
        prices = read_prices(settings.prices) if settings.prices else LIST_PRICES
    except (OSError, ValueError) as error:
        raise unusable(f"VIEWER_PRICES={settings.prices}", error, "correct the file, or remove the setting") from error
    try:
        days = settings.max_age_days
        return Store(settings.db, settings.max_bytes, None if days is None else days * 86_400, prices)
    except (OSError, DatabaseError) as error:
        raise unusable(f"VIEWER_DB={settings.db}", error, "name a file that can be written") from error


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these alone; only the type says otherwise
    return _answer(request, error.status_code, error.detail, error.headers)


def _refuse_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    return _answer(request, 400, f"{problem['loc'][-1]}: {message}.")


def _try_later(request: Request, error: Exception) -> Response:
    return _answer(request, 503, f"The viewer cannot use its file now: {error}.")


def _ignore(request: Request, _: Exception) -> Response:
    return _answer(request, 400, "The body ended before its end.")  # nobody reads it


def _answer(request: Request, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer a browser with a page, other clients with JSON."""
    if "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/"):
        if status == HTTPStatus.UNAUTHORIZED and request.app.state.settings.tokens:
            then = f"{request.url.path}?{request.url.query}" if request.method == "GET" else ""
            response = page(request, "token.html", status, message=INVITATION, then=then, live=0)
        else:
            response = page(request, "error.html", status, message=message, live=0)
        response.headers.update(headers or {})
        return response
    return JSONResponse({"message": message}, status, headers)
