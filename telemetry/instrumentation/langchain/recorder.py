"""Record LangChain's runs with one callback handler, which creates an ordinary span for each."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from threading import get_ident
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from openinference.instrumentation import TraceConfig, get_attributes_from_context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry.export.formats.langfuse import COUNT
from telemetry.export.formats.marks import OWN_MESSAGES
from telemetry.export.truncate import SHORTENED
from telemetry.instrumentation.langchain import implicit_turn, model_attributes
from telemetry.instrumentation.langchain import openinference_internals as internals
from telemetry.instrumentation.langchain.implicit_turn import ImplicitTurn
from telemetry.instrumentation.langchain.langchain_internals import InlineHandler
from telemetry.instrumentation.langchain.partial_answer import partial_output, worth_keeping
from telemetry.instrumentation.langchain.prompt_links import PromptLinks, without_prompt
from telemetry.instrumentation.langchain.serialize import (
    KnownMessages,
    Serializer,
    json_list,
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
from telemetry.json_text import parse
from telemetry.messages_json import MessagesJson
from telemetry.otel.sampler import model_call_began, model_call_ended
from telemetry.plain_data import is_a, safe_json
from telemetry.turn import Turn, current_turn


@dataclass(slots=True)
class OpenRun:
    """An open run, with the attributes that its span gets at the end."""

    span: Span
    name: str
    start_ns: int
    turn: Turn[Any] | None
    implicit: ImplicitTurn | None
    attributes: dict[str, AttributeValue]
    extra: dict[str, Any]
    run_id: UUID
    parent_run_id: UUID | None  # of the run whose span is above
    before: "OpenRun | None" = None  # an open run with the same id: a program may run both at the same time
    is_outermost: bool = False
    is_model: bool = False
    is_node: bool = False
    failed: bool = False
    thread: int = field(default_factory=get_ident)
    known: KnownMessages = field(default_factory=KnownMessages)
    chunks: list[Any] = field(default_factory=list)


class Recorder(InlineHandler, BaseCallbackHandler):
    """Creates a span for each run. Inputs are serialised at once, since they may be edited in place afterwards."""

    ignore_retry = ignore_custom_event = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride] - constants here, properties there

    def __init__(self, tracer: Tracer, serializer: Serializer) -> None:
        self._tracer = tracer
        self._serializer = serializer
        self._prompts = PromptLinks()
        self._masking = _masking()
        self._runs: dict[UUID, OpenRun] = {}
        # Runs without a span, with what the runs below them are below instead.
        self._hidden: dict[UUID, OpenRun] = {}

    def get_span(self, run_id: UUID) -> Span | None:
        """Return the span of an open run."""
        run = self._runs.get(run_id)
        return run.span if run else None

    def get_run(self, run_id: UUID) -> OpenRun | None:
        """Return an open run, with the id of the one above."""
        return self._runs.get(run_id)

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, run_type: str | None = None, **kwargs: Any
    ) -> None:
        """Start the span of a node, a graph, an edge, a prompt or a parser."""
        if run := self._start(run_type or "chain", serialized, run_id, kwargs):
            self._set_input(run, inputs)
            if run_type == "prompt":
                run.attributes.update(internals.prompt_template(plain_prompt_inputs(inputs), serialized))
            self._ask(run, inputs)

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, inputs: Any = None, **kwargs: Any
    ) -> None:
        """Start the span of a tool call."""
        if run := self._start("tool", serialized, run_id, kwargs):
            arguments = inputs if is_a(inputs, dict) else {"input": input_str}
            with handle_internal_errors("record an input"):
                _set_text(run, "input", self._serializer.arguments_text(arguments))
            named = {
                "tool.name": (serialized or {}).get("name"),
                "tool.description": (serialized or {}).get("description"),
            }
            run.attributes |= {key: value for key, value in named.items() if value}

    def on_retriever_start(self, serialized: Any, query: str, *, run_id: UUID, **kwargs: Any) -> None:
        """Start the span of a retrieval."""
        if run := self._start("retriever", serialized, run_id, {**kwargs, "name": kwargs.get("name") or "Retriever"}):
            self._set_input(run, {"query": query})

    def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Start the span of a model call."""
        if run := self._start_model(serialized, run_id, kwargs):
            beside = sum(len(str(value)) for key, value in run.attributes.items() if key.startswith("llm.tools."))
            text, left_out = self._serializer.conversation(messages[0] if messages else [], beside)
            run.attributes |= {"input.value": text, "input.mime_type": "application/json"}
            if left_out:
                run.attributes[SHORTENED] = left_out
            self._ask(run, messages[0] if messages else None)

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        """Start the span of a call of a completion model."""
        if run := self._start_model(serialized, run_id, kwargs):
            self._set_input(run, {"prompts": prompts})
            run.attributes["llm.prompts"] = prompts
            self._ask(run, prompts)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **_: Any) -> None:
        """Record the time of the first token, and keep the text in case the run never ends."""
        run = self._runs.get(run_id)
        if run is None:
            return
        if not run.chunks:
            record_first_token(run.span, run_id)
        run.chunks.append(worth_keeping(token, chunk))
        if token and run.turn:
            run.turn.token()

    def on_chain_end(self, outputs: Any, *, run_id: UUID, inputs: Any = None, **_: Any) -> None:
        """End the span; a stream has its input only now."""
        if run := self._open(run_id):
            if inputs is not None:
                self._set_input(run, inputs)
                self._ask(run, inputs)
            self._answer(run, outputs)
            self._set_output(run, outputs if is_a(outputs, dict) else {"output": outputs})
            self._end(run_id, run)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """End the span with the result and its figures."""
        if run := self._open(run_id):
            outputs = {"output": output}
            self._set_output(run, outputs)
            self._end(run_id, run, self._tool_call(run, outputs, failed=False))

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **_: Any) -> None:
        """End the span with the documents."""
        if run := self._open(run_id):
            self._set_output(run, {"documents": documents})
            self._end(run_id, run, self._documents(documents))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """End the span with the answer and its usage."""
        if run := self._open(run_id):
            self._answer(run, model_attributes.answer_of(response))
            self._end(run_id, run, self._model_answer(run, response))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, inputs: Any = None, **_: Any) -> None:
        """End the span; a cancellation or a question to a person is not an error."""
        if run := self._open(run_id):
            if inputs is not None:
                self._set_input(run, inputs)
            run.failed = self._set_error(run, error)
            self._end(run_id, run)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End the span; the turn counts the failure even if the graph handles it."""
        if run := self._open(run_id):
            run.failed = self._set_error(run, error)
            if run.failed and (turn := current_turn()):
                turn.counts["tool_errors"] += 1
            self._end(run_id, run, self._tool_call(run, None, failed=True))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **_: Any) -> None:
        """End the span with the partial answer."""
        if run := self._open(run_id):
            run.failed = self._set_error(run, error)
            whole = response if response and any(response.generations) and not run.chunks else None
            self._end(run_id, run, self._model_answer(run, whole) if whole else {})

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End the span; a cancellation is not an error."""
        self.on_chain_error(error, run_id=run_id)

    def on_interrupt(self, event: Any) -> None:
        """Do nothing: LangGraph calls every handler, and the spans of the nodes record it."""

    def on_resume(self, event: Any) -> None:
        """Do nothing; see `on_interrupt`."""

    def end_runs(self, run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
        """End the spans of these runs that are still open, with what is known of them.

        A run in another thread cannot be stopped: it counts as abandoned in any case.
        """
        for run_id in run_ids:
            self._hidden.pop(run_id, None)
            while run := self._runs.get(run_id):
                mark_cancelled(run.span, cancelled=cancelled, abandoned=abandoned or run.thread != get_ident())
                is_tool = run.attributes.get("openinference.span.kind") == "TOOL"
                self._end(run_id, run, self._tool_call(run, None, failed=False) if is_tool else None)

    def _open(self, run_id: UUID) -> OpenRun | None:
        # A thread that nobody could stop reports the end of a run that has ended with its turn: there is none.
        self._hidden.pop(run_id, None)
        run = self._runs.get(run_id)
        if run is None or run.span.is_recording():
            return run
        self._end(run_id, run)
        return None

    def _start_model(self, serialized: Any, run_id: UUID, kwargs: dict[str, Any]) -> OpenRun | None:
        run = self._start("llm", serialized, run_id, kwargs)
        if run:
            model_call_began(run_id)
            run.is_model = True
            run.extra["invocation_params"] = kwargs.get("invocation_params") or {}
            run.attributes |= model_attributes.request_attributes(run.extra)
        return run

    def _start(self, run_type: str, serialized: Any, run_id: UUID, kwargs: dict[str, Any]) -> OpenRun | None:
        turn = current_turn()
        if (turn and turn.stopping) or not is_instrumentation_enabled():
            # The turn has already ended its open spans, and would not end this one.
            return None
        parent_id = kwargs.get("parent_run_id")
        above = self._runs.get(parent_id) or self._hidden.get(parent_id) if parent_id else None
        if above and is_hidden(run_type, kwargs.get("tags")):
            self._hidden[run_id] = above
            if above.implicit:
                above.implicit.open_runs.add(run_id)
            return None
        name, start_ns = _name(kwargs.get("name"), serialized), time.time_ns()
        metadata = kwargs.get("metadata") or {}
        implicit = above.implicit if above else None
        context = set_span_in_context(above.span) if above else None
        is_outermost = not parent_id
        if is_outermost and (started := implicit_turn.start(run_type, name, kwargs.get("tags"), metadata)):
            implicit, context = started
        span = self._tracer.start_span(name, context, start_time=start_ns)
        ids = run_id, above.run_id if above else None
        run = OpenRun(span, name, start_ns, turn, implicit, {}, {"metadata": metadata}, *ids)
        run.before, self._runs[run_id] = self._runs.get(run_id), run
        run.is_outermost, run.is_node = is_outermost, is_node(kwargs.get("tags"))
        for around in filter(None, (turn, implicit)):
            around.open_runs.add(run_id)
        if not span.is_recording():
            return None
        if implicit:
            implicit.on_start(name, metadata, span, outermost=is_outermost)
        prompt = self._prompts.on_run_start(run_id, parent_id, run_type, metadata)
        run.attributes = {"openinference.span.kind": _kind(name, run_type), **_metadata_attributes(metadata), **prompt}
        if implicit and implicit.session_id:
            # What a config says beats what OpenInference's `using_session` says around it.
            run.attributes["session.id"] = implicit.session_id
        return run

    def _set_input(self, run: OpenRun, inputs: Any) -> None:
        inputs = inputs if is_a(inputs, dict) else {"input": inputs}
        with handle_internal_errors("record an input"):
            run.known = known_messages(inputs)
            if run.known.number:
                run.attributes[COUNT] = run.known.number
            _set_text(run, "input", self._serializer.input_text(inputs))

    def _set_output(self, run: OpenRun, outputs: dict[str, Any]) -> None:
        # The span must end even if reading the program's value raises.
        with handle_internal_errors("record an output"):
            _set_text(run, "output", self._serializer.output_text(outputs, run.known))
            if run.is_node and (own := self._serializer.own_messages(outputs, run.known)):
                run.attributes[OWN_MESSAGES] = own

    def _model_answer(self, run: OpenRun, response: LLMResult) -> dict[str, AttributeValue]:
        with handle_internal_errors("record a model's answer"):
            _set_text(run, "output", self._answer_text(response))
            price = run.turn.price if run.turn else None
            found = model_attributes.response_attributes(response, run.extra)
            return {**found, **model_attributes.cost_attributes(response, price)}
        return {}

    def _answer_text(self, response: LLMResult) -> str | None:
        messages = model_attributes.messages_of(response)
        if not messages:
            return self._serializer.input_text(response.model_dump())
        shown = [self._serializer.message(each) for each in messages]
        return MessagesJson([shown[0].text] if len(shown) == 1 else json_list(shown))

    def _documents(self, documents: Sequence[Document]) -> dict[str, AttributeValue]:
        with handle_internal_errors("record documents"):
            found = [dict(internals.document(document)) for document in plain_documents(documents)]
            return dict(model_attributes.flatten([("retrieval.documents", found)]))
        return {}

    def _ask(self, run: OpenRun, inputs: Any) -> None:
        if run.is_outermost and run.implicit:
            run.implicit.set_input(inputs)

    def _answer(self, run: OpenRun, outputs: Any) -> None:
        if run.is_outermost and run.implicit:
            run.implicit.set_output(outputs)

    def _set_error(self, run: OpenRun, error: BaseException) -> bool:
        with handle_internal_errors("record an error"):
            if run.implicit:
                run.implicit.on_error(error, outermost=run.is_outermost)
            return set_error_status(run.span, error)
        return True

    def _tool_call(self, run: OpenRun, outputs: dict[str, Any] | None, *, failed: bool) -> dict[str, AttributeValue]:
        seconds = (time.time_ns() - run.start_ns) / 1e9
        with handle_internal_errors("measure a tool call"):
            return tool_call_attributes(run.name, current_turn(), failed=failed, outputs=outputs, seconds=seconds)
        return {}

    def _end(self, run_id: UUID, run: OpenRun, more: Mapping[str, AttributeValue] | None = None) -> None:
        if self._runs.pop(run_id, None) is None:
            return
        if run.before:
            self._runs[run_id] = run.before
        for around in filter(None, (run.turn, run.implicit)):
            around.open_runs.discard(run_id)
        if run.is_outermost and run.implicit:
            # LangChain does not end some cancelled runs.
            self.end_runs(list(run.implicit.open_runs), cancelled=True, abandoned=False)
            run.implicit.set_status()
        if run.is_model:
            model_call_ended(run_id)
        if run.chunks and "output.value" not in run.attributes:
            run.attributes |= partial_output(run.chunks)
        run.span.set_attributes(self._masked({**run.attributes, **(more or {})}))
        if not run.failed:
            run.span.set_status(StatusCode.OK)
        run.span.end()
        if run.is_outermost and run.implicit:
            run.implicit.end()

    def _masked(self, attributes: dict[str, AttributeValue]) -> Mapping[str, AttributeValue]:
        if not self._masking:
            return attributes
        return {key: kept for key, value in attributes.items() if (kept := self._masking.mask(key, value)) is not None}


def _set_text(run: OpenRun, place: str, text: str | None) -> None:
    if text is not None:
        run.attributes[f"{place}.value"] = text
        if text[:1] in ("{", "["):
            run.attributes[f"{place}.mime_type"] = "application/json"


def _name(name: str | None, serialized: Any) -> str:
    fields = serialized if isinstance(serialized, dict) else {}
    return name or fields.get("name") or (fields.get("id") or ["Unnamed"])[-1]


def _kind(name: str, run_type: str) -> str:
    return "AGENT" if is_agent(name, run_type) else _kind_of(run_type)


@lru_cache(maxsize=64)
def _kind_of(run_type: str) -> str:
    return internals.span_kind(run_type)


def _metadata_attributes(metadata: Mapping[str, Any]) -> dict[str, AttributeValue]:
    filed = dict(get_attributes_from_context())
    metadata = without_prompt(metadata)
    if metadata:
        around = parse(filed.get("metadata"))
        filed["metadata"] = safe_json({**around, **metadata} if isinstance(around, dict) else metadata)
    return filed


def _masking() -> TraceConfig | None:
    config = TraceConfig()
    return config if any(value is True for name, value in vars(config).items() if name.startswith("hide")) else None
