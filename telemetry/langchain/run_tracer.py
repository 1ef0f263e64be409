"""LangChain's runs as spans: OpenInference's tracer, with what it leaves out.

What goes in is serialised once and at once, and levels above the model carry what is new; the first token is timed; a
cancelled run is no error; a run that LangChain never ends is ended with its turn.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from threading import get_ident
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run
from openinference.instrumentation.langchain._tracer import OpenInferenceTracer
from opentelemetry import context as otel
from opentelemetry.trace import Span, get_current_span

from telemetry.failures import contained
from telemetry.json_text import written
from telemetry.langchain import graph_turn
from telemetry.langchain.content import Content, Known, known_in
from telemetry.langchain.endings import end_early, first_token, partial, tell
from telemetry.langchain.tool_calls import measured
from telemetry.sampler import model_call_began, model_call_ended
from telemetry.shape.node import COUNT
from telemetry.shorten import SHORTENED
from telemetry.span import one_line
from telemetry.turn import current_turn

# OpenInference reads more of these than what went in and what came out.
_READ_WHOLE = ("llm", "retriever", "prompt")


class RunTracer(OpenInferenceTracer):
    """OpenInference's tracer, run inline: in the order of events, in the context of the run."""

    run_inline = True
    ignore_retry = ignore_custom_event = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride] - constants here, properties there
    content = Content()

    @property
    def ignore_chain(self) -> bool:
        """Whether to pass over a run: one below a span that is not sampled, so that nothing of it is serialised."""
        around = get_current_span().get_span_context()
        return around.is_valid and not around.trace_flags.sampled

    ignore_llm = ignore_chat_model = ignore_agent = ignore_retriever = ignore_chain  # pyright: ignore[reportIncompatibleMethodOverride] - each is the same property

    def on_chat_model_start(  # pyright: ignore[reportIncompatibleMethodOverride] - the base takes what comes
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Run:
        """Begin a model's run; LangChain's own way would turn the whole history into dicts first."""
        run = Run(
            id=run_id,
            parent_run_id=parent_run_id,
            serialized=serialized,
            inputs={},
            extra={**kwargs, **({"metadata": metadata} if metadata else {})},
            start_time=datetime.now(UTC),
            run_type="llm",
            tags=tags,
            name=name,  # pyright: ignore[reportArgumentType] - it is taken from `serialized` then
        )
        self._start_trace(run)
        if (span := self.get_span(run_id)) and span.is_recording():
            tools = (kwargs.get("invocation_params") or {}).get("tools")
            beside = len(written(tools)) if tools else 0
            said, left_out = self.content.conversation(messages[0] if messages else [], beside)
            run.inputs = {"input": said}
            if left_out:
                span.set_attribute(SHORTENED, left_out)
        return run

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - the Run it returns is used by nobody, and keeping an event per token costs memory
        """Time the first token and keep what was said, for the case that the run never ends."""
        run = self.run_map.get(str(run_id))
        if run is None:
            return
        said = run.extra.setdefault("said", [])
        if not said:
            first_token(self.get_span(run_id), run_id)
        said.append(token)
        if token and (turn := current_turn()):
            turn.token()

    def on_chain_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; not as an error where it was only cancelled, or asks a person."""
        self._tell(error, run_id)
        return BaseTracer.on_chain_error(self, error, *args, run_id=run_id, **kwargs)

    def on_tool_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; a tool's failure counts on the turn even where the graph handles it."""
        if self._tell(error, run_id) and (turn := current_turn()):
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
                end_early(span, cancelled=cancelled, abandoned=left)
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
        about = run.extra.get("metadata") or {}
        inside = graph_turn.began(run.id, run.parent_run_id, run.name, about)
        token = otel.attach(inside) if inside else None
        try:
            super()._start_trace(run)
        finally:
            if token:
                otel.detach(token)
        graph_turn.asked(run.id, run.inputs)
        run.extra["thread"] = get_ident()
        if turn:
            turn.open_runs.add(run.id)
        if run.run_type == "llm":
            model_call_began(run.id)
        span = self.get_span(run.id)
        if span and span.is_recording() and run.run_type not in _READ_WHOLE:
            self._take(run, span)

    def _take(self, run: Run, span: Span) -> None:
        """Have the run's input as text: it may be edited in place before the run ends."""
        known = run.extra["known"] = known_in(run.inputs)
        if known.number:
            span.set_attribute(COUNT, known.number)
        with contained("record what went in"):
            run.inputs = _alone("input", self.content.given(run.inputs))

    def _end_trace(self, run: Run) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - wrapped for timing there
        model_call_ended(run.id)
        self.end_runs(graph_turn.left_open(run.id), cancelled=True, abandoned=False)
        if turn := current_turn():
            turn.open_runs.discard(run.id)
        span, said = self.get_span(run.id), run.extra.pop("said", None)
        if span and said and (run.error or not run.outputs):
            run.outputs = None  # of a failed call an empty result, which would hide what was said
            span.set_attributes(partial(said))
        if span and run.run_type == "tool":
            with contained("measure a tool call"):
                seconds = (run.end_time - run.start_time).total_seconds() if run.end_time else None
                call = measured(run.name, turn, failed=bool(run.error), outputs=run.outputs, seconds=seconds)
                span.set_attributes(call)
        graph_turn.answered(run.id, run.outputs)
        if span and span.is_recording() and run.run_type not in _READ_WHOLE:
            self._give(run, span)
        super()._end_trace(run)
        graph_turn.ended(run.id)

    def _give(self, run: Run, span: Span) -> None:
        if not isinstance(run.inputs.get("input"), str):  # a stream tells its input when it ends
            self._take(run, span)
        known = run.extra.pop("known", Known())
        with contained("record what came out"):
            run.outputs = _alone("output", self.content.came(run.outputs, known)) if run.outputs else None

    def _tell(self, error: BaseException, run_id: UUID) -> bool:
        graph_turn.failed(run_id, error)
        span = self.get_span(run_id)
        return tell(span, error) if span else False

    @staticmethod
    def _get_stacktrace(error: BaseException) -> str:
        # It becomes the status of the span: one line. The stack is in the exception event.
        return one_line(error)


def _alone(name: str, text: str | None) -> dict[str, Any]:
    """A run's field that OpenInference takes as it is."""
    return {} if text is None else {name: text}
