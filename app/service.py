"""The agent service: its routes, its middleware, and its resources."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute

import telemetry
from app.agents import AGENTS, Agent, load_all
from app.auth import is_secret
from app.body_limit import BodyLimit
from app.checkpoint_pruning import CheckpointPruning
from app.database.branches import Branches
from app.database.connect import open_database, unusable_database
from app.database.outcomes import Outcomes
from app.database.turn_events import TurnEvents
from app.errors import error_response, handle_errors
from app.evaluation import answered
from app.failed_logins import FailedLogins
from app.files import make_private
from app.files.connect import connect_files
from app.limits import limits_of
from app.models.models import load_models
from app.retention import Retention
from app.root_path import RootPath
from app.routes import events, feedback, files, history, info, intake, runs, threads, turns
from app.runs.lifespan import open_runs
from app.schema import ErrorAnswer
from app.settings import ServiceSettings
from app.threads import Threads
from app.turns import Turns
from app.versions import Versions
from telemetry.browser_guard import BrowserGuard

MAX_BODY_BYTES = 1_000_000
# Requests to these paths create a trace only if they fail.
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
# Declared for every route, in place of FastAPI's list of validation errors.
FAILURES: Mapping[int | str, str] = {
    422: "The request is invalid",
    "4XX": "The request was refused",
    "5XX": "The service failed",
}


def create_app(settings: ServiceSettings, agents: Mapping[str, Agent] = AGENTS) -> FastAPI:
    """Return the service with these agents, traced if `telemetry.configure` was called before.

    Raises `ModelSettingError` for a model that cannot be used.
    """
    app = FastAPI(
        title="Agent service",
        lifespan=_lifespan,
        responses={status: {"model": ErrorAnswer, "description": reason} for status, reason in FAILURES.items()},
        generate_unique_id_function=_operation_id,
    )
    app.state.settings = settings
    app.state.agent_table = agents
    app.state.failed_logins = FailedLogins()
    app.state.models = load_models(settings.model, settings.models, settings.demo_pace_s, settings.model_fallbacks)
    handle_errors(app)
    limits = {"/files": settings.max_file_bytes + files.ENVELOPE_BYTES, intake.PATH: intake.MAX_BATCH_BYTES}
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES, limits=limits)
    if settings.auth_secret is None:
        app.openapi = partial(_with_optional_credentials, app.openapi)
        app.add_middleware(
            BrowserGuard, refuse=error_response, hosts=settings.allowed_hosts, origins=settings.cors_origins
        )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["traceresponse", "Retry-After"],
        )
    if settings.root_path:
        app.add_middleware(RootPath, path=settings.root_path)
    for module in (info, intake, history, threads, files, feedback, events, runs, turns):
        app.include_router(module.router)
    if settings.score_turns:
        telemetry.evaluate("answered", answered)
    telemetry.instrument(app, trace_only_failures=QUIET, trust_caller=lambda header: is_secret(header, settings))
    return app


def _with_optional_credentials(openapi: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    contract = openapi()
    for operation in (operation for path in contract["paths"].values() for operation in path.values()):
        if {} not in operation.get("security", [{}]):
            operation["security"].insert(0, {})
    return contract


def _operation_id(route: APIRoute) -> str:
    # Some functions serve two paths, one with an agent and one for the default agent.
    return f"{route.name}_of_agent" if route.path.startswith("/{agent_id}/") else route.name


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: ServiceSettings = app.state.settings
    await run_sync(_keep_private, settings)
    async with AsyncExitStack() as stack:
        with unusable_database(settings):
            await _start(app, settings, stack)
        yield


async def _start(app: FastAPI, settings: ServiceSettings, stack: AsyncExitStack) -> None:
    """Open what the routes use."""
    state = app.state
    database = state.database = await stack.enter_async_context(open_database(settings))
    state.files = await connect_files(settings, database.engine)
    await state.files.sweep()
    state.agents = load_all(state.models, database.checkpoints, state.agent_table, state.files)
    pruning = CheckpointPruning(database)
    await stack.enter_async_context(pruning.running())
    outcomes = Outcomes(database.engine)
    state.turns = Turns(
        state.agents.graphs,
        database.store,
        outcomes,
        TurnEvents(database.engine),
        database.thread_locks,
        database.availability,
        Versions(database.store, Branches(database.engine), outcomes),
        pruning,
        limits_of(settings, database.engine),
        settings.turn_timeout_s,
        lambda model: settings.model_prices.get(model or state.models.default),
        single_process=settings.postgres_url is None,
    )
    state.threads = Threads(database.engine, state.files, database.checkpoints, settings)
    state.runs = await stack.enter_async_context(open_runs(settings, database, state.turns, state.agents))
    await stack.enter_async_context(state.turns.repairing())
    retention = Retention(database, state.threads, state.turns.try_lock_thread)
    await stack.enter_async_context(retention.running(settings.retention_days))


def _keep_private(settings: ServiceSettings) -> None:
    if settings.database_url and settings.files_url:
        return
    try:
        make_private(settings.data_dir)
    except OSError as error:
        raise settings.unusable_data_dir(error) from error
