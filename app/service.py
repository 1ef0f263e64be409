"""The agent service, put together."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from anyio.to_thread import run_sync
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

import telemetry
from app.agents import AGENTS, Agent, load_all
from app.body_limit import BodyLimit
from app.caller import is_secret
from app.database.database import open_database
from app.database.outcomes import Outcomes
from app.errors import answer_errors
from app.evaluation import answered
from app.files import Files, open_files, open_store
from app.models.models import load_models
from app.routes import events, feedback, files, health, history, info, intake, runs, threads, turns
from app.runs.opening import open_runs
from app.settings import Settings
from app.threads import Threads
from app.turns import Turns
from telemetry.settings import unusable

MAX_BODY = 1_000_000
# Only turns, files and feedback make traces; these do when they fail.
QUIET = (
    "/health.*",
    "/info",
    "/runs.*",
    "/threads.*",
    "/traces/.*",
    intake.PATH,
    "/history",
    "/[^/]+/history",
    "/docs",
    "/openapi.json",
    "/favicon.ico",
)


def create_app(settings: Settings, agents: Mapping[str, Agent] = AGENTS) -> FastAPI:
    """Return the service of these agents, traced where `telemetry.configure` has set tracing up.

    Raises `ModelSettingError` for a model that cannot be used.
    """
    app = FastAPI(title="Agent service", lifespan=_lifespan)
    app.state.settings = settings
    app.state.table = agents
    app.state.models = load_models(settings.model, settings.models, settings.demo_pace_s)
    larger = {"/files": settings.max_file_bytes + files.ENVELOPE, intake.PATH: intake.MAX_BATCH}
    app.add_middleware(BodyLimit, limit=MAX_BODY, paths=larger)
    answer_errors(app)
    for part in (health, info, intake, history, threads, files, feedback, events, runs, turns):
        app.include_router(part.router)
    if settings.score_turns:
        telemetry.evaluate("answered", answered)
    telemetry.instrument(app, quiet=QUIET, honours=lambda header: is_secret(header, settings))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    async with open_database(settings) as database:
        app.state.database = database
        app.state.files = await _files(settings, database.engine)
        app.state.agents = load_all(app.state.models, database.checkpoints, app.state.table, app.state.files)
        app.state.turns = Turns(
            app.state.agents.graphs,
            database.records,
            Outcomes(database.engine),
            database.claims,
            settings.turn_timeout_s,
            lambda model: settings.model_prices.get(model or app.state.models.default),
            alone=settings.postgres_url is None,
        )
        app.state.threads = Threads(database.engine, app.state.files, database.checkpoints)
        async with open_runs(settings, database, app.state.turns, app.state.agents) as app.state.runs:
            yield


async def _files(settings: Settings, engine: AsyncEngine) -> Files:
    try:
        store = await run_sync(open_store, settings.files_url, settings.data_dir / "files")
    except OSError as error:
        raise settings.no_folder(error) from error
    except (ImportError, ValueError) as error:
        raise unusable(f"FILES_URL={settings.files_url}", error, "name a store whose driver is installed") from error
    return await open_files(engine, store, settings.max_file_bytes, settings.file_types)
