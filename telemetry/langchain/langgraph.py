"""LangChain and LangGraph traced: who records their runs, where it is attached, and what hangs under a run."""

from collections.abc import Callable, Iterable
from functools import cache, wraps
from importlib import import_module
from typing import Any, Protocol, cast
from uuid import UUID

import langchain_core.callbacks
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.context import register_configure_hook
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry import context as otel
from opentelemetry.trace import Span, TracerProvider, get_current_span, set_span_in_context

from telemetry.failures import contained
from telemetry.langchain.content import Content
from telemetry.langchain.recorder import Recorder
from telemetry.langchain.run_tracer import RunTracer
from telemetry.settings import Settings

# LangChain and LangGraph copy the context for each run and enter the run's config there, each by its own function.
_ENTRANCES = ("langchain_core.runnables.config", "langgraph._internal._runnable")


class RunRecorder(Protocol):
    """Who makes a span of each run."""

    def get_span(self, run_id: UUID) -> Span | None:
        """Return the span of a run that is open."""
        ...

    def end_runs(self, run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
        """End the spans of these runs, of those that are still open."""
        ...


class _Attached:
    """What LangChain asks which handler to add wherever a run begins; it takes it for a context variable."""

    handler: RunRecorder | None = None

    def get(self) -> RunRecorder | None:
        """Return the handler; none inside of what is not sampled, so that nothing at all is done for it."""
        around = get_current_span().get_span_context()
        return None if around.is_valid and not around.trace_flags.sampled else self.handler


_attached = _Attached()


def instrument(provider: TracerProvider, settings: Settings) -> None:
    """Trace every LangChain run of the process, and let what it does hang under it."""
    _attached.handler = _RECORDERS[settings.langchain](provider, settings)
    _register()
    for module in _ENTRANCES:
        _bridge(module)


def uninstrument() -> None:
    """Undo `instrument`."""
    _attached.handler = None
    if LangChainInstrumentor().is_instrumented_by_opentelemetry:
        LangChainInstrumentor().uninstrument()
    for name in _ENTRANCES:
        module = _module(name)
        if module and hasattr(module._set_config_context, "__wrapped__"):  # noqa: SLF001 - the one place where both enter a run's context
            module._set_config_context = module._set_config_context.__wrapped__  # noqa: SLF001 - see above


def end_runs(run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
    """End the spans of these runs, of those that are still open."""
    if _attached.handler:
        _attached.handler.end_runs(run_ids, cancelled=cancelled, abandoned=abandoned)


def _openinference(provider: TracerProvider, settings: Settings) -> RunRecorder | None:
    instrumentor = LangChainInstrumentor()
    untouched = langchain_core.callbacks.BaseCallbackManager.__init__
    # The messages stand in input.value already.
    instrumentor.instrument(tracer_provider=provider, config=TraceConfig(hide_input_messages=True))
    # It would add its tracer to every manager that is made, sampled or not: LangChain itself asks us, see above.
    langchain_core.callbacks.BaseCallbackManager.__init__ = untouched
    tracer = getattr(instrumentor, "_tracer", None)
    if tracer:
        tracer.__class__ = RunTracer
        tracer.content = Content(settings.max_value_bytes)
    return tracer


def _recorder(provider: TracerProvider, settings: Settings) -> RunRecorder:
    return Recorder(provider.get_tracer("telemetry.recorder"), Content(settings.max_value_bytes))


_RECORDERS = {"openinference": _openinference, "recorder": _recorder}


@cache
def _register() -> None:
    register_configure_hook(cast(Any, _attached), inheritable=True)


def _bridge(name: str) -> None:
    module = _module(name)
    if module is None:
        return
    with contained(f"bridge {name}"):
        _wrap(module)


def _wrap(module: Any) -> None:
    enter: Callable[..., Any] = module._set_config_context  # noqa: SLF001 - see uninstrument

    @wraps(enter)
    def entered(config: RunnableConfig, *args: Any) -> Any:
        result = enter(config, *args)
        if span := _span_of(config):
            # This context was copied for the run and ends with it: there is nothing to detach.
            otel.attach(set_span_in_context(span))
        return result

    module._set_config_context = entered  # noqa: SLF001 - see uninstrument


def _span_of(config: RunnableConfig) -> Span | None:
    manager, handler = config.get("callbacks"), _attached.handler
    if not handler or not isinstance(manager, BaseCallbackManager) or not manager.parent_run_id:
        return None
    return handler.get_span(manager.parent_run_id)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None
