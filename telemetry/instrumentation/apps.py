"""Trace the requests of an application, and send its spans when it ends."""

import sys
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope, to_thread

from telemetry import pipeline
from telemetry.configure import FLUSH_TIMEOUT_S, flush, resume, shutdown
from telemetry.instrumentation.asgi import Lifespan, RequestContext, RouteName
from telemetry.otel.propagator import TrustedPropagator
from telemetry.otel.request_filter import RequestFilter
from telemetry.settings import SettingsError
from telemetry.task import end_tasks
from telemetry.turn import close_turns, drain

if TYPE_CHECKING:
    from starlette.types import ASGIApp

TrustCaller = Callable[[str | None], bool]
App = TypeVar("App")


def instrument(
    app: App,
    *,
    trace_only_failures: Iterable[str] = (),
    trust_caller: TrustCaller | None = None,
    quiet: Iterable[str] | None = None,
    honours: TrustCaller | None = None,
) -> App:
    """Trace the requests of this app, and send the remaining spans when it ends; call it before the app serves.

    Args:
        app: a FastAPI, Starlette, Litestar or Quart application, which is changed in place; any other ASGI
            application, for which one is returned that must be served instead; or a Flask application, with
            opentelemetry-instrumentation-flask installed. With tracing off, only its lifespan is wrapped.
        trace_only_failures: regular expressions; a request whose whole path matches one makes a trace only if it fails.
        trust_caller: gets the `Authorization` header of a request, or None, and returns whether its sender may
            continue a trace; default: every sender may.
        quiet: the former name of `trace_only_failures`.
        honours: the former name of `trust_caller`.

    Returns the application to serve. Raises `SettingsError` for a WSGI application that cannot be traced.

    Example:
        >>> import telemetry
        >>> from fastapi import FastAPI
        >>> app = FastAPI()
        >>> app = telemetry.instrument(app, trace_only_failures=["/health"])
    """
    if quiet is not None or honours is not None:
        warnings.warn(
            "instrument(quiet=, honours=) are now called trace_only_failures= and trust_caller=",
            DeprecationWarning,
            stacklevel=2,
        )
    requests, propagator = pipeline.get(RequestFilter), pipeline.get(TrustedPropagator)
    if requests:
        requests.trace_only_failures(quiet or trace_only_failures)
    if propagator and (trusts := trust_caller or honours):
        propagator.trust_caller = trusts
    return _instrument(app)


def _instrument(app: Any) -> Any:
    if hasattr(app, "wsgi_app") and not hasattr(app, "asgi_app"):
        return _flask(app)
    if _is_wsgi(app):
        raise SettingsError(
            f"{type(app).__module__} makes WSGI applications, whose requests `telemetry.instrument` cannot trace: use "
            "its instrumentor of opentelemetry-instrumentation after `telemetry.configure`, or its ASGI application."
        )
    if hasattr(app, "build_middleware_stack"):
        return _starlette(app)
    if hasattr(app, "asgi_handler") and hasattr(app, "on_shutdown"):
        return _litestar(app)
    if hasattr(app, "asgi_app"):
        app.asgi_app = Lifespan(_traced(app.asgi_app), _begin, drain, _end)
        return app
    return Lifespan(_traced(app), _begin, drain, _end)


def _starlette(app: Any) -> Any:
    app.router.lifespan_context = _with_shutdown(app.router.lifespan_context)
    if not pipeline.active():
        return app
    if (fastapi := sys.modules.get("fastapi")) and isinstance(app, fastapi.FastAPI):
        _fastapi(app)
    else:
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: _traced(build())
    return app


def _fastapi(app: Any) -> None:
    # Imported here because it needs FastAPI, which a traced page or worker may not have.
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    active = pipeline.active()
    build, around = app.build_middleware_stack, []

    def build_own() -> "ASGIApp":
        # ddtrace puts a middleware around the stack, and the instrumentor takes none but Starlette's own stack.
        around[:] = _outer_middlewares(stack := build())
        return around[-1].app if around else stack

    app.build_middleware_stack = build_own
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=active and active.provider,
        # A stream of two hundred events would make two hundred spans of ASGI messages.
        exclude_spans=["send", "receive"],
    )
    build_traced = app.build_middleware_stack

    def build_all() -> "ASGIApp":
        stack = build_traced()
        if around:
            around[-1].app = stack
        return RequestContext(around[0] if around else stack)

    app.build_middleware_stack = build_all


def _outer_middlewares(stack: Any) -> list[Any]:
    """Return the middlewares around Starlette's own stack, the outermost first; none if that is not found."""
    from starlette.middleware.errors import ServerErrorMiddleware

    found: list[Any] = []
    while not isinstance(stack, ServerErrorMiddleware):
        found.append(stack)
        if (stack := getattr(stack, "app", None)) is None:
            return []
    return found


def _litestar(app: Any) -> Any:
    async def end() -> None:
        await drain()
        await _end()

    app.on_startup.insert(0, _begin)
    app.on_shutdown.append(end)
    app.asgi_handler = _traced(app.asgi_handler)
    return app


def _flask(app: Any) -> Any:
    active = pipeline.active()
    if active is None:
        return app
    if not find_spec("opentelemetry.instrumentation.flask"):
        raise SettingsError(
            "To trace the requests of a Flask application, install opentelemetry-instrumentation-flask beside "
            "agent-telemetry."
        )
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # pyright: ignore[reportMissingImports]

    FlaskInstrumentor().instrument_app(app, tracer_provider=active.provider)
    return app


def _is_wsgi(app: Any) -> bool:
    return any(kind.__name__ == "WSGIHandler" for kind in type(app).__mro__)


def _traced(app: "ASGIApp") -> "ASGIApp":
    active = pipeline.active()
    if active is None:
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    middleware: Any = OpenTelemetryMiddleware
    return RequestContext(
        middleware(RouteName(app), tracer_provider=active.provider, exclude_spans=["send", "receive"])
    )


class _Lifespans(Counter[str]):
    """How many lifespans of this process's apps are open."""


async def _begin() -> None:
    pipeline.shared(_Lifespans)["open"] += 1
    await _in_thread(resume)


async def _end() -> None:
    lifespans = pipeline.shared(_Lifespans)
    lifespans["open"] -= 1
    end_tasks()
    if not lifespans["open"]:
        # What runs on after its response, in a task or a thread, ends with the process.
        close_turns("shutdown")
    # Another app of this process is running, or this one starts again, as in tests or serverless functions.
    await _in_thread(partial(flush, FLUSH_TIMEOUT_S) if lifespans["open"] else shutdown)


def _with_shutdown(lifespan: Callable[..., Any]) -> Callable[..., Any]:
    # After SIGTERM a server runs nothing later than this. Turns end before the app's own resources are closed.
    @asynccontextmanager
    async def wrapped(app: Any) -> AsyncIterator[Any]:
        await _begin()
        try:
            async with lifespan(app) as state:
                yield state
                await drain()
        finally:
            await _end()

    return wrapped


async def _in_thread(work: Callable[[], object]) -> None:
    """Run blocking work off the event loop, and to its end even if the caller is cancelled."""
    with CancelScope(shield=True):
        await to_thread.run_sync(work)
