"""The agent service, put together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

import telemetry
from app.agents import load_all
from app.body_limit import BodyLimit
from app.caller import is_secret
from app.errors import answer_errors
from app.models import load_models
from app.records import open_records
from app.routes import health, history, info, turns
from app.settings import Settings
from app.turns import Turns

MAX_BODY = 1_000_000
# Only turns, files and feedback make traces; these do when they fail.
QUIET = (
    "/health.*",
    "/info",
    "/threads.*",
    "/history",
    "/[^/]+/history",
    "/docs",
    "/openapi.json",
    "/favicon.ico",
)


def create_app(settings: Settings) -> FastAPI:
    """Return the service, traced where `telemetry.configure` has set tracing up.

    Raises `ModelSettingError` for a model that cannot be used.
    """
    app = FastAPI(title="Agent service", lifespan=_lifespan)
    app.state.settings = settings
    app.state.models = load_models(settings.model, settings.models, settings.demo_pace_s)
    app.add_middleware(BodyLimit, limit=MAX_BODY)
    answer_errors(app)
    for part in (health, info, history, turns):
        app.include_router(part.router)
    telemetry.instrument(app, quiet=QUIET, honours=lambda header: is_secret(header, settings))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        records = await stack.enter_async_context(
            open_records(f"sqlite+aiosqlite:///{settings.data_dir / 'service.db'}")
        )
        saver = await stack.enter_async_context(
            AsyncSqliteSaver.from_conn_string(str(settings.data_dir / "checkpoints.db"))
        )
        app.state.agents = load_all(app.state.models, saver)
        app.state.turns = Turns(records, settings.turn_timeout_s)
        yield
        await telemetry.drain()
    telemetry.shutdown()
