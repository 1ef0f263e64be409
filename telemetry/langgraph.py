"""LangChain's runs as spans: OpenInference's tracer, with what it leaves out.

What a node or a tool does hangs under its span; the first token is timed; a cancelled run is no error; a run that
LangChain never ends is ended with its turn.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import wraps
from importlib import import_module
from threading import get_ident
from traceback import walk_tb
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.langchain._tracer import OpenInferenceTracer
from opentelemetry import context as otel
from opentelemetry.trace import Span, StatusCode, TracerProvider, get_current_span, set_span_in_context

from telemetry import graph_turn
from telemetry.failures import contained
from telemetry.sampler import model_call_began, model_call_ended
from telemetry.span import fail, one_line
from telemetry.tool_calls import measured
from telemetry.turn import current_turn

# LangChain and LangGraph copy the context for each run and enter the run's config there, each by its own function.
_ENTRANCES = ("langchain_core.runnables.config", "langgraph._internal._runnable")
_MODEL_RUNS = ("llm", "chat_model")
# What LangGraph raises to move on: to ask a person, to go to a node of the graph above.
_CONTROL = "GraphBubbleUp"
# Who waits in one of these when it is cancelled leaves a thread behind that goes on.
_INTO_THREADS = {"run_in_executor", "to_thread", "run_sync"}


class RunTracer(OpenInferenceTracer):
    """OpenInference's tracer, run inline: in the order of events, in the context of the run."""

    run_inline = True

    @property
    def ignore_chain(self) -> bool:
        """Whether to pass over a run: one below a span that is not sampled, so that nothing of it is serialised."""
        around = get_current_span().get_span_context()
        return around.is_valid and not around.trace_flags.sampled

    ignore_llm = ignore_chat_model = ignore_agent = ignore_retriever = ignore_chain  # pyright: ignore[reportIncompatibleMethodOverride] - each is the same property

    def on_llm_new_token(self, token: str, *, run_id: UUID, **_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - the Run it returns is used by nobody, and keeping an event per token costs memory
        """Time the first token and keep what was said, for the case that the run never ends."""
        run = self.run_map.get(str(run_id))
        if run is None:
            return
        said = run.extra.setdefault("said", [])
        if not said:
            self._first_token(run_id)
        said.append(token)
        if token and (turn := current_turn()):
            turn.token()

    def on_chain_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; not as an error where it was only cancelled, or asks a person."""
        self._tell(error, run_id)
        return BaseTracer.on_chain_error(self, error, *args, run_id=run_id, **kwargs)

    def on_tool_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; a tool's failure counts on the turn even where the graph handles it."""
        if (turn := current_turn()) and self._tell(error, run_id):
            turn.counts["tool_errors"] += 1
        return BaseTracer.on_tool_error(self, error, *args, run_id=run_id, **kwargs)

    def on_llm_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; not as an error where it was only cancelled."""
        self._tell(error, run_id)
        return BaseTracer.on_llm_error(self, error, *args, run_id=run_id, **kwargs)

    def on_retriever_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; not as an error where it was only cancelled."""
        self._tell(error, run_id)
        return BaseTracer.on_retriever_error(self, error, *args, run_id=run_id, **kwargs)

    def end_runs(self, run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
        """End the spans of these runs, of those that are still open, with what is known of them.

        What runs in a thread cannot be stopped: it is abandoned in any case.
        """
        for run in filter(None, [self.run_map.get(str(run_id)) for run_id in run_ids]):
            if span := self.get_span(run.id):
                left = abandoned or run.extra.get("thread") != get_ident()
                _end_early(span, cancelled=cancelled, abandoned=left)
            run.end_time = datetime.now(UTC)
            self._end_trace(run)

    def _get_run(self, run_id: UUID, run_type: str | set[str] | None = None) -> Run:
        # A thread that nobody could stop reports the end of a run that has ended with its turn: it is ignored.
        if str(run_id) in self.run_map:
            return super()._get_run(run_id, run_type)
        return Run(id=run_id, name="late", run_type="chain", inputs={}, start_time=datetime.now(UTC))

    def _start_trace(self, run: Run) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - wrapped for timing there
        turn = current_turn()
        if turn and turn.stopping:
            # Nobody would end its span: the turn has ended those that were open.
            return
        with graph_turn.began(run):
            super()._start_trace(run)
        run.extra["thread"] = get_ident()
        if turn:
            turn.open_runs.add(run.id)
        if run.run_type in _MODEL_RUNS:
            model_call_began(run.id)

    def _end_trace(self, run: Run) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - wrapped for timing there
        model_call_ended(run.id)
        if turn := current_turn():
            turn.open_runs.discard(run.id)
        span, said = self.get_span(run.id), run.extra.pop("said", None)
        if span and said and (run.error or not run.outputs):
            run.outputs = None  # of a failed call an empty result, which would hide what was said
            _set_partial(span, "".join(said))
        if span and run.run_type == "tool":
            with contained("measure a tool call"):
                span.set_attributes(measured(run, current_turn()))
        if begun := graph_turn.of(run):
            # Of a graph that was cancelled LangChain ends some runs, not all.
            self.end_runs(self._below(run), cancelled=True, abandoned=False)
        super()._end_trace(run)
        if begun:
            begun.end(run.outputs)

    def _first_token(self, run_id: UUID) -> None:
        now = datetime.now(UTC)
        model_call_ended(run_id)
        if span := self.get_span(run_id):
            span.set_attribute("langfuse.observation.completion_start_time", now.isoformat())

    def _tell(self, error: BaseException, run_id: UUID) -> bool:
        """Give the run's span what this error means; returns whether it is a failure."""
        span = self.get_span(run_id)
        self._tell_graph(error, run_id)
        if not isinstance(error, Exception):
            if span:
                _end_early(span, cancelled=True, abandoned=_waited_for_thread(error))
            return False
        if _CONTROL in {kind.__name__ for kind in type(error).__mro__}:
            if span:
                _end_in_order(span, interrupted="Interrupt" in type(error).__name__)
            return False
        if span:
            fail(span, error)
        return True

    def _tell_graph(self, error: BaseException, run_id: UUID) -> None:
        run = self.run_map.get(str(run_id))
        begun = graph_turn.of(self._root(run)) if run else None
        if begun and run:
            begun.waits = begun.waits or "Interrupt" in type(error).__name__
            begun.error = None if run.parent_run_id else error

    def _root(self, run: Run) -> Run:
        while above := self.run_map.get(str(run.parent_run_id)):
            run = above
        return run

    def _below(self, root: Run) -> list[UUID]:
        return [run.id for run in list(self.run_map.values()) if run is not root and self._root(run) is root]

    @staticmethod
    def _get_stacktrace(error: BaseException) -> str:
        # It becomes the status of the span: one line. The stack is in the exception event.
        return one_line(error)


def instrument(provider: TracerProvider) -> None:
    """Trace every LangChain run of the process, and let what it does hang under it."""
    # The messages stand in input.value already.
    LangChainInstrumentor().instrument(tracer_provider=provider, config=TraceConfig(hide_input_messages=True))
    if run_tracer := tracer():
        run_tracer.__class__ = RunTracer
    for module in _ENTRANCES:
        _bridge(module)


def uninstrument() -> None:
    """Undo `instrument`."""
    LangChainInstrumentor().uninstrument()
    for name in _ENTRANCES:
        module = _module(name)
        if module and hasattr(module._set_config_context, "__wrapped__"):  # noqa: SLF001 - the one place where both enter a run's context
            module._set_config_context = module._set_config_context.__wrapped__  # noqa: SLF001 - see above


def tracer() -> RunTracer | None:
    """Return the tracer that has the open runs, None where LangChain is not traced."""
    return getattr(LangChainInstrumentor(), "_tracer", None)


def end_runs(run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
    """End the spans of these runs, of those that are still open."""
    if run_tracer := tracer():
        run_tracer.end_runs(run_ids, cancelled=cancelled, abandoned=abandoned)


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
    manager, run_tracer = config.get("callbacks"), tracer()
    if not isinstance(manager, BaseCallbackManager) or not manager.parent_run_id or not run_tracer:
        return None
    return run_tracer.get_span(manager.parent_run_id)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None


def _end_early(span: Span, *, cancelled: bool, abandoned: bool) -> None:
    # A status of OK is final: an ERROR that follows does not replace it.
    span.set_status(StatusCode.OK)
    marks = {"cancelled": cancelled, "abandoned": abandoned}
    span.set_attributes({name: True for name, holds in marks.items() if holds})
    span.set_attribute("langfuse.observation.level", "WARNING")


def _end_in_order(span: Span, *, interrupted: bool) -> None:
    span.set_status(StatusCode.OK)
    if interrupted:
        span.set_attribute("interrupted", True)


def _waited_for_thread(error: BaseException) -> bool:
    frames = list(walk_tb(error.__traceback__))
    return bool(frames) and any(frame.f_code.co_name in _INTO_THREADS for frame, _ in frames[-2:])


def _set_partial(span: Span, text: str) -> None:
    span.set_attributes(
        {
            "output.value": text,
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": text,
        }
    )
