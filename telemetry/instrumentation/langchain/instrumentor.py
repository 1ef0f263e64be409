"""Trace LangChain and LangGraph: attach the recorder, and make each run's span current inside the run."""

import logging
from collections.abc import Iterable
from functools import cache, partial
from typing import Any, Protocol, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.context import register_configure_hook
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry import context as otel
from opentelemetry.trace import Span, TracerProvider, get_current_span, set_span_in_context

from telemetry import pipeline
from telemetry.backends.langfuse_sdk import sends_to_langfuse
from telemetry.instrumentation.langchain import langchain_internals, openinference_internals
from telemetry.instrumentation.langchain.openinference_tracer import RunTracer
from telemetry.instrumentation.langchain.recorder import Recorder
from telemetry.instrumentation.langchain.run_config import note_configurable
from telemetry.instrumentation.langchain.serialize import Serializer
from telemetry.otel.local_root import is_left_out
from telemetry.settings import Settings
from telemetry.turn import RunCloser

logger = logging.getLogger(__name__)

_LANGFUSE_HANDLER = "langfuse.langchain.CallbackHandler"


class RunHandler(Protocol):
    """A LangChain callback handler that creates a span for each run."""

    def get_span(self, run_id: UUID) -> Span | None:
        """Return the span of an open run."""
        ...

    def end_runs(self, run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
        """End the spans of these runs that are still open."""
        ...


class _Active:
    """The handler that records this process's runs."""

    def __init__(self, handler: RunHandler) -> None:
        self.handler = handler


class _HandlerVariable:
    """Tells LangChain which handler to add to a run; LangChain treats it as a context variable."""

    def get(self) -> RunHandler | None:
        """Return the handler; None below a span that is left out by sampling, so that its runs cost nothing."""
        if is_left_out(get_current_span()):
            return None
        active = pipeline.get(_Active)
        return active.handler if active else None


class _DoubleRecording:
    """Warns once of Langfuse's own handler beside ours: it records the same runs for the same project."""

    def __init__(self) -> None:
        self._has_warned = False

    def warn(self, manager: BaseCallbackManager) -> None:
        """Warn where the manager of a run has that handler."""
        # By its module: a program without Langfuse's SDK for LangChain need not import it.
        if self._has_warned or not any(type(each).__module__ == _LANGFUSE_HANDLER for each in manager.handlers):
            return
        self._has_warned = True
        logger.warning(
            "Langfuse's CallbackHandler is among the callbacks of a run that is recorded already: its model calls, "
            "their tokens and their cost are counted twice. Remove the handler (docs/migrate.md)."
        )


def _ignore(_: BaseCallbackManager) -> None:
    """Do nothing: elsewhere, Langfuse's handler doubles nothing."""


def instrument(provider: TracerProvider, settings: Settings) -> None:
    """Trace every LangChain run of the process, and make its span current inside."""
    if handler := _HANDLERS[settings.langchain](provider, settings):
        pipeline.put(_Active(handler))
        pipeline.put(RunCloser(handler.end_runs))
        langchain_internals.wrap_entrances(partial(_attach_span, handler))
        on_manager = _DoubleRecording().warn if sends_to_langfuse(settings) else _ignore
        langchain_internals.wrap_configure(note_configurable, on_manager)
        langchain_internals.wrap_llm_start()
    _register()


def uninstrument() -> None:
    """Undo `instrument`."""
    pipeline.remove(_Active)
    pipeline.remove(RunCloser)
    if LangChainInstrumentor().is_instrumented_by_opentelemetry:
        LangChainInstrumentor().uninstrument()
    openinference_internals.take_back_runs()
    langchain_internals.unwrap_entrances()
    langchain_internals.unwrap_configure()
    langchain_internals.unwrap_llm_start()


def _openinference(provider: TracerProvider, settings: Settings) -> RunHandler | None:
    instrumentor = LangChainInstrumentor()
    # The messages are already in input.value.
    config = TraceConfig(hide_input_messages=True)
    langchain_internals.keep_callback_managers(lambda: instrumentor.instrument(tracer_provider=provider, config=config))
    tracer: Any = openinference_internals.tracer_of(instrumentor)
    if tracer:
        tracer.__class__ = RunTracer
        tracer.serializer = Serializer(settings.max_value_bytes)
    return tracer


def _recorder(provider: TracerProvider, settings: Settings) -> RunHandler:
    recorder = Recorder(provider.get_tracer("telemetry.recorder"), Serializer(settings.max_value_bytes))
    openinference_internals.lend_runs(recorder.get_span, recorder.get_run)
    return recorder


_HANDLERS = {"openinference": _openinference, "recorder": _recorder}


@cache
def _register() -> None:
    register_configure_hook(cast(Any, _HandlerVariable()), inheritable=True)


def _attach_span(handler: RunHandler, config: RunnableConfig) -> None:
    manager = config.get("callbacks")
    run_id = manager.parent_run_id if isinstance(manager, BaseCallbackManager) else None
    if run_id and (span := handler.get_span(run_id)):
        # This context was copied for the run and ends with it: there is nothing to detach.
        otel.attach(set_span_in_context(span))
