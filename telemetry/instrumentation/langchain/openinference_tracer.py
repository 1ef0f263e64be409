"""Record LangChain's runs with OpenInference's tracer, and add what it leaves out.

An input is serialised once, when the run starts. Spans above the model have only the new messages. The time of the
first token is recorded, a cancelled run is not an error, and a run that LangChain never ends is ended with its turn.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from threading import get_ident
from typing import Any
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run
from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import Span, get_current_span

from telemetry.export.formats.langfuse import COUNT
from telemetry.export.formats.marks import OWN_MESSAGES
from telemetry.export.truncate import SHORTENED
from telemetry.instrumentation.langchain import implicit_turn
from telemetry.instrumentation.langchain.implicit_turn import ImplicitTurn
from telemetry.instrumentation.langchain.langchain_internals import InlineHandler
from telemetry.instrumentation.langchain.model_attributes import (
    answer_of,
    cost_attributes,
    function_definitions,
    response_ids,
)
from telemetry.instrumentation.langchain.openinference_internals import OpenInferenceTracer
from telemetry.instrumentation.langchain.partial_answer import partial_output, worth_keeping
from telemetry.instrumentation.langchain.prompt_links import PromptLinks, without_prompt
from telemetry.instrumentation.langchain.serialize import (
    KnownMessages,
    Serializer,
    known_messages,
    plain_documents,
    plain_prompt_inputs,
)
from telemetry.instrumentation.langchain.span_status import (
    is_agent,
    is_hidden,
    is_node,
    mark_cancelled,
    record_first_token,
    set_error_status,
)
from telemetry.instrumentation.langchain.tool_calls import tool_call_attributes
from telemetry.internal_errors import handle_internal_errors
from telemetry.otel.local_root import is_left_out
from telemetry.otel.sampler import model_call_began, model_call_ended
from telemetry.plain_data import is_a, plain, safe_json
from telemetry.span import one_line
from telemetry.turn import Turn, current_turn

# Of these, OpenInference reads more than the input and the output.
_READ_WHOLE = ("llm", "retriever", "prompt")
# Where OpenInference looks for the session that a run belongs to.
_SESSIONS = ("session_id", "conversation_id", "thread_id")


class RunTracer(InlineHandler, OpenInferenceTracer):
    """OpenInference's tracer, run inline: in the order of events, in the context of the run."""

    ignore_retry = ignore_custom_event = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride] - constants here, properties there
    serializer = Serializer()
    _prompts = PromptLinks()

    @property
    def ignore_chain(self) -> bool:
        """Whether to ignore a run because it is below a span that sampling left out, so that it is not serialised."""
        return is_left_out(get_current_span())

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
        """Start a model's run, without LangChain's conversion of the whole history to dicts."""
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
            beside = len(safe_json(tools)) if tools else 0
            text, left_out = self.serializer.conversation(messages[0] if messages else [], beside)
            run.inputs = {"input": text}
            self._ask(run, messages[0] if messages else None)
            if left_out:
                span.set_attribute(SHORTENED, left_out)
            span.set_attributes(function_definitions(kwargs.get("invocation_params") or {}))
        return run

    def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - the Run it returns is used by nobody, and keeping an event per token costs memory
        """Record the time of the first token, and keep the text in case the run never ends."""
        run = self.run_map.get(str(run_id))
        if run is None:
            return
        chunks = run.extra.setdefault("chunks", [])
        if not chunks:
            record_first_token(self.get_span(run_id), run_id)
        chunks.append(worth_keeping(token, chunk))
        if token and (turn := current_turn()):
            turn.token()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> Run:
        """End the run with its answer."""
        if run := self.run_map.get(str(run_id)):
            self._answer(run, answer_of(response))
        if span := self.get_span(run_id):
            turn = current_turn()
            span.set_attributes(response_ids(response) | cost_attributes(response, turn.price if turn else None))
        return super().on_llm_end(response, run_id=run_id, **kwargs)

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **kwargs: Any) -> Run:
        """End the run with its documents."""
        return super().on_retriever_end(plain_documents(documents), run_id=run_id, **kwargs)

    def on_chain_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; not as an error where it was only cancelled, or asks a person."""
        self._set_error(error, run_id)
        return BaseTracer.on_chain_error(self, error, *args, run_id=run_id, **kwargs)

    def on_tool_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; a tool's failure counts on the turn even where the graph handles it."""
        if self._set_error(error, run_id) and (turn := current_turn()):
            turn.counts["tool_errors"] += 1
        return BaseTracer.on_tool_error(self, error, *args, run_id=run_id, **kwargs)

    def on_llm_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; not as an error where it was only cancelled."""
        self._set_error(error, run_id)
        return BaseTracer.on_llm_error(self, error, *args, run_id=run_id, **kwargs)

    def on_retriever_error(self, error: BaseException, *args: Any, run_id: UUID, **kwargs: Any) -> Run:
        """End the run; not as an error where it was only cancelled."""
        self._set_error(error, run_id)
        return BaseTracer.on_retriever_error(self, error, *args, run_id=run_id, **kwargs)

    def end_runs(self, run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
        """End the spans of these runs that are still open, with what is known of them.

        A run in another thread cannot be stopped: it counts as abandoned in any case.
        """
        for run_id in run_ids:
            while run := self.run_map.get(str(run_id)):
                if span := self.get_span(run.id):
                    left = abandoned or run.extra.get("thread") != get_ident()
                    mark_cancelled(span, cancelled=cancelled, abandoned=left)
                run.end_time = datetime.now(UTC)
                self._end_trace(run)

    def _get_run(self, run_id: UUID, run_type: str | set[str] | None = None) -> Run:
        # A thread that could not be stopped reports the end of a run that has ended with its turn: it is ignored.
        if str(run_id) in self.run_map:
            return super()._get_run(run_id, run_type)
        return Run(id=run_id, name="late", run_type="chain", inputs={}, start_time=datetime.now(UTC))

    def _start_trace(self, run: Run) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - wrapped for timing there
        turn = current_turn()
        if turn and turn.stopping:
            # The turn has already ended its open spans, and would not end this one.
            return
        if not self._hide(run):
            self._start_span(run, turn)

    def _hide(self, run: Run) -> bool:
        """Return whether a run gets no span; what is below one that has none is below the run above it."""
        above = self.run_map.get(str(run.parent_run_id))
        if above and above.extra.get("hidden"):
            run.parent_run_id = above.parent_run_id
        if not above or not is_hidden(run.run_type, run.tags):
            return False
        run.extra["hidden"] = True
        self.run_map[str(run.id)] = run
        if implicit := _turn_of(above):
            implicit.open_runs.add(run.id)
        return True

    def _start_span(self, run: Run, turn: Turn[Any] | None) -> None:
        metadata = run.extra.get("metadata") or {}
        run.extra = {**run.extra, "thread": get_ident(), "before": self._open_under(run.id)}
        if parameters := run.extra.get("invocation_params"):
            run.extra["invocation_params"] = plain(parameters)
        if run.run_type == "prompt":
            run.inputs = plain_prompt_inputs(run.inputs)
        inside = self._enter_turn(run, metadata)
        token = otel.attach(inside) if inside else None
        try:
            super()._start_trace(run)
        finally:
            if token:
                otel.detach(token)
        implicit, span = _turn_of(run), self.get_span(run.id)
        prompt = self._prompts.on_run_start(run.id, run.parent_run_id, run.run_type, metadata)
        if span and prompt:
            span.set_attributes(prompt)
        if metadata:
            run.extra["metadata"] = _Metadata(
                plain(without_prompt(metadata)), implicit.session_id if implicit else None
            )
        for around in filter(None, (turn, implicit)):
            around.open_runs.add(run.id)
        if implicit and span:
            implicit.on_start(run.name, metadata, span, outermost=not run.parent_run_id)
        if run.run_type == "llm":
            model_call_began(run.id)
        self._ask(run, run.inputs.get("prompts") if run.run_type == "llm" else run.inputs)
        if span and span.is_recording() and run.run_type not in _READ_WHOLE:
            self._set_input(run, span)

    def _open_under(self, run_id: UUID) -> tuple[Run, Span | None] | None:
        """Return an open run with the same id, whose span must end as well: a program may run both at the same time."""
        before = self.run_map.get(str(run_id))
        return (before, self.get_span(run_id)) if before else None

    def _enter_turn(self, run: Run, metadata: Mapping[str, Any]) -> Context | None:
        if run.parent_run_id:
            above = self.run_map.get(str(run.parent_run_id))
            run.extra["implicit"] = _turn_of(above) if above else None
            return None
        started = implicit_turn.start(run.run_type, run.name, run.tags, metadata)
        run.extra["implicit"], inside = started or (None, None)
        return inside

    def _ask(self, run: Run, inputs: Any) -> None:
        if not run.parent_run_id and (implicit := _turn_of(run)):
            implicit.set_input(inputs)

    def _answer(self, run: Run, outputs: Any) -> None:
        if not run.parent_run_id and (implicit := _turn_of(run)):
            implicit.set_output(outputs)

    def _set_input(self, run: Run, span: Span) -> None:
        """Serialise the run's input now, because it may be edited in place before the run ends."""
        known = run.extra["known"] = known_messages(run.inputs)
        if known.number:
            span.set_attribute(COUNT, known.number)
        with handle_internal_errors("record an input"):
            is_tool = run.run_type == "tool"
            text = (self.serializer.arguments_text if is_tool else self.serializer.input_text)(run.inputs)
            run.inputs = _only_field("input", text)

    def _end_trace(self, run: Run) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - wrapped for timing there
        model_call_ended(run.id)
        self.run_map.pop(str(run.id), None)
        if not run.extra.get("hidden"):
            self._end_span(run)

    def _end_span(self, run: Run) -> None:
        turn, implicit = current_turn(), _turn_of(run)
        for around in filter(None, (turn, implicit)):
            around.open_runs.discard(run.id)
        if implicit and not run.parent_run_id:
            # LangChain does not end some cancelled runs.
            self.end_runs(list(implicit.open_runs), cancelled=True, abandoned=False)
            implicit.set_status()
        span, chunks = self.get_span(run.id), run.extra.pop("chunks", None)
        if _is_empty_result(run):
            run.outputs = None
        if span and chunks and (run.error or not run.outputs):
            run.outputs = None
            span.set_attributes(partial_output(chunks))
        if span and run.run_type == "tool":
            _set_tool_call(run, turn, span)
        if run.run_type != "llm":
            self._ask(run, run.inputs)  # for a stream it is known only now
            self._answer(run, run.outputs)
        if span and span.is_recording() and run.run_type not in _READ_WHOLE:
            self._set_output(run, span)
        if "agent" in run.name.lower() and not is_agent(run.name, run.run_type):
            run.name = run.run_type  # OpenInference derives the span kind from it
        super()._end_trace(run)
        self._restore(run)
        if implicit and not run.parent_run_id:
            implicit.end()

    def _restore(self, run: Run) -> None:
        if before := run.extra.pop("before", None):
            other, span = before
            self.run_map[str(run.id)] = other
            if span:
                self._spans_by_run[run.id] = span

    def _set_output(self, run: Run, span: Span) -> None:
        if not is_a(run.inputs.get("input"), str):  # a stream has its input only at its end
            self._set_input(run, span)
        known = run.extra.pop("known", KnownMessages())
        with handle_internal_errors("record an output"):
            if is_node(run.tags) and (own := self.serializer.own_messages(run.outputs, known)):
                span.set_attribute(OWN_MESSAGES, own)
            run.outputs = (
                _only_field("output", self.serializer.output_text(run.outputs, known)) if run.outputs else None
            )

    def _set_error(self, error: BaseException, run_id: UUID) -> bool:
        run, span = self.run_map.get(str(run_id)), self.get_span(run_id)
        if run and (implicit := _turn_of(run)):
            implicit.on_error(error, outermost=not run.parent_run_id)
        return set_error_status(span, error) if span else False

    @staticmethod
    def _get_stacktrace(error: BaseException) -> str:
        # This becomes the status of the span, in one line. The stack is in the exception event.
        return one_line(error)


def _is_empty_result(run: Run) -> bool:
    """Return whether it is what LangChain makes of a model call that failed."""
    return run.run_type == "llm" and bool(run.error) and not any((run.outputs or {}).get("generations") or ())


def _set_tool_call(run: Run, turn: Turn[Any] | None, span: Span) -> None:
    with handle_internal_errors("measure a tool call"):
        seconds = (run.end_time - run.start_time).total_seconds() if run.end_time else None
        span.set_attributes(
            tool_call_attributes(run.name, turn, failed=bool(run.error), outputs=run.outputs, seconds=seconds)
        )


class _Metadata(dict[str, Any]):
    """A run's metadata, in which OpenInference finds its turn's session: that of all spans."""

    def __init__(self, metadata: Mapping[str, Any], session: Any) -> None:
        super().__init__(metadata)
        self._session = session

    def get(self, key: str, default: Any = None) -> Any:
        return self._session if key in _SESSIONS else super().get(key, default)


def _turn_of(run: Run) -> ImplicitTurn | None:
    return run.extra.get("implicit")


def _only_field(name: str, text: str | None) -> dict[str, Any]:
    """Return a dict with one text, which OpenInference uses unchanged."""
    return {} if text is None else {name: text}
