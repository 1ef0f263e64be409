"""The recorder: one callback handler that makes an ordinary span of each run."""

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
from openinference.instrumentation.langchain import _tracer as conventions
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry.failures import contained
from telemetry.json_text import dump
from telemetry.langchain import graph_turn, model
from telemetry.langchain.content import Content, Known, known_in, listed
from telemetry.langchain.endings import end_early, first_token, partial, tell
from telemetry.langchain.tool_calls import measured
from telemetry.said import Said
from telemetry.sampler import model_call_began, model_call_ended
from telemetry.shape.node import COUNT
from telemetry.shorten import SHORTENED
from telemetry.turn import Turn, current_turn

# Where LangChain's metadata may name the conversation.
_THREADS = ("session_id", "conversation_id", "thread_id")


@dataclass(slots=True)
class Run:
    """A run that is open, and what its span will say of it."""

    span: Span
    name: str
    began: int
    turn: Turn[Any] | None
    attributes: dict[str, AttributeValue]
    extra: dict[str, Any]
    is_model: bool = False
    failed: bool = False
    thread: int = field(default_factory=get_ident)
    known: Known = field(default_factory=Known)
    said: list[Any] = field(default_factory=list)


class Recorder(BaseCallbackHandler):
    """Makes a span of each run, inline: whatever goes in is serialised at once, since it may be edited right after."""

    run_inline = True
    ignore_retry = ignore_custom_event = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride] - constants here, properties there

    def __init__(self, tracer: Tracer, content: Content) -> None:
        self._tracer = tracer
        self._content = content
        self._hides = _hides()
        self._runs: dict[UUID, Run] = {}

    def get_span(self, run_id: UUID) -> Span | None:
        """Return the span of a run that is open."""
        run = self._runs.get(run_id)
        return run.span if run else None

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, run_type: str | None = None, **about: Any
    ) -> None:
        """Begin a node, a graph, an edge, a prompt, a parser."""
        if run := self._begin(run_type or "chain", serialized, run_id, about):
            self._take(run, inputs)
            if run_type == "prompt":
                run.attributes.update(conventions._parse_prompt_template(inputs, serialized))  # noqa: SLF001 - its words for them
            graph_turn.asked(run_id, inputs)

    def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, inputs: Any = None, **about: Any) -> None:
        """Begin a tool call."""
        if run := self._begin("tool", serialized, run_id, about):
            self._take(run, inputs if isinstance(inputs, dict) else {"input": input_str})
            named = {
                "tool.name": (serialized or {}).get("name"),
                "tool.description": (serialized or {}).get("description"),
            }
            run.attributes |= {key: value for key, value in named.items() if value}

    def on_retriever_start(self, serialized: Any, query: str, *, run_id: UUID, **about: Any) -> None:
        """Begin a search."""
        if run := self._begin("retriever", serialized, run_id, {**about, "name": about.get("name") or "Retriever"}):
            self._take(run, {"query": query})

    def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **about: Any
    ) -> None:
        """Begin a model call."""
        if run := self._begin_model(serialized, run_id, about):
            beside = sum(len(str(value)) for key, value in run.attributes.items() if key.startswith("llm.tools."))
            said, left_out = self._content.conversation(messages[0] if messages else [], beside)
            run.attributes |= {"input.value": said, "input.mime_type": "application/json"}
            if left_out:
                run.attributes[SHORTENED] = left_out

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **about: Any) -> None:
        """Begin the call of a model that completes text."""
        if run := self._begin_model(serialized, run_id, about):
            self._take(run, {"prompts": prompts})
            run.attributes["llm.prompts"] = prompts

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **_: Any) -> None:
        """Time the first token and keep what was said, for the case that the run never ends."""
        run = self._runs.get(run_id)
        if run is None:
            return
        if not run.said:
            first_token(run.span, run_id)
        run.said.append(token)
        if token and run.turn:
            run.turn.token()

    def on_chain_end(self, outputs: Any, *, run_id: UUID, inputs: Any = None, **_: Any) -> None:
        """End it; a stream tells its input only here."""
        if run := self._open(run_id):
            if inputs is not None:
                self._take(run, inputs)
                graph_turn.asked(run_id, inputs)
            graph_turn.answered(run_id, outputs)
            self._tell(run, outputs if isinstance(outputs, dict) else {"output": outputs})
            self._end(run_id, run)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """End it, and say how it went."""
        if run := self._open(run_id):
            outputs = {"output": output}
            self._tell(run, outputs)
            self._end(run_id, run, self._measured(run, outputs, failed=False))

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **_: Any) -> None:
        """End it, with what was found."""
        if run := self._open(run_id):
            self._tell(run, {"documents": documents})
            self._end(run_id, run, self._found(documents))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """End it, with the answer and what it cost."""
        if run := self._open(run_id):
            self._end(run_id, run, self._answer(run, response))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, inputs: Any = None, **_: Any) -> None:
        """End it; not as an error where it was only cancelled, or asks a person."""
        if run := self._open(run_id):
            if inputs is not None:
                self._take(run, inputs)
            run.failed = self._failed(run, error)
            graph_turn.failed(run_id, error)
            self._end(run_id, run)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End it; a tool's failure counts on the turn even where the graph handles it."""
        if run := self._open(run_id):
            run.failed = self._failed(run, error)
            if run.failed and (turn := current_turn()):
                turn.counts["tool_errors"] += 1
            self._end(run_id, run, self._measured(run, None, failed=True))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **_: Any) -> None:
        """End it, with what it had said."""
        if run := self._open(run_id):
            run.failed = self._failed(run, error)
            known = response if response and response.generations and not run.said else None
            self._end(run_id, run, self._answer(run, known) if known else {})

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End it; not as an error where it was only cancelled."""
        self.on_chain_error(error, run_id=run_id)

    def on_interrupt(self, event: Any) -> None:
        """Nothing: LangGraph tells every handler, and the nodes' runs have said it."""

    def on_resume(self, event: Any) -> None:
        """Nothing; see `on_interrupt`."""

    def end_runs(self, run_ids: Iterable[UUID], *, cancelled: bool, abandoned: bool) -> None:
        """End the spans of these runs, of those that are still open, with what is known of them.

        What runs in a thread cannot be stopped: it is abandoned in any case.
        """
        for run_id in run_ids:
            if run := self._runs.get(run_id):
                end_early(run.span, cancelled=cancelled, abandoned=abandoned or run.thread != get_ident())
                is_tool = run.attributes.get("openinference.span.kind") == "TOOL"
                self._end(run_id, run, self._measured(run, None, failed=False) if is_tool else None)

    def _open(self, run_id: UUID) -> Run | None:
        # A thread that nobody could stop reports the end of a run that has ended with its turn: there is none.
        run = self._runs.get(run_id)
        if run is None or run.span.is_recording():
            return run
        self._end(run_id, run)
        return None

    def _begin_model(self, serialized: Any, run_id: UUID, about: dict[str, Any]) -> Run | None:
        run = self._begin("llm", serialized, run_id, about)
        if run:
            model_call_began(run_id)
            run.is_model = True
            run.extra["invocation_params"] = about.get("invocation_params") or {}
            run.attributes |= model.asked(run.extra)
        return run

    def _begin(self, run_type: str, serialized: Any, run_id: UUID, about: dict[str, Any]) -> Run | None:
        turn = current_turn()
        if (turn and turn.stopping) or not is_instrumentation_enabled():
            # Of a turn that has ended nobody would end the span.
            return None
        above = self._runs.get(about["parent_run_id"]) if about.get("parent_run_id") else None
        name, began = _name(about.get("name"), serialized), time.time_ns()
        metadata = about.get("metadata") or {}
        inside = graph_turn.began(run_id, about.get("parent_run_id"), name, metadata)
        context = set_span_in_context(above.span) if above else inside
        span = self._tracer.start_span(name, context, start_time=began)
        run = self._runs[run_id] = Run(span, name, began, turn, {}, {"metadata": metadata})
        if turn:
            turn.open_runs.add(run_id)
        if not span.is_recording():
            return None
        run.attributes = {"openinference.span.kind": _kind(name, run_type), **_filed(metadata)}
        return run

    def _take(self, run: Run, inputs: Any) -> None:
        inputs = inputs if isinstance(inputs, dict) else {"input": inputs}
        with contained("record what went in"):
            run.known = known_in(inputs)
            if run.known.number:
                run.attributes[COUNT] = run.known.number
            _put(run, "input", self._content.given(inputs))

    def _tell(self, run: Run, outputs: dict[str, Any]) -> None:
        # Whatever a value of the program's does when it is looked at, the span ends.
        with contained("record what came out"):
            _put(run, "output", self._content.came(outputs, run.known))

    def _answer(self, run: Run, response: LLMResult) -> dict[str, AttributeValue]:
        with contained("record a model's answer"):
            _put(run, "output", self._said(response))
            return model.answered(response, run.extra)
        return {}

    def _said(self, response: LLMResult) -> str | None:
        messages = model.messages_in(response)
        if not messages:
            return self._content.given(response.model_dump())
        shown = [self._content.message(each) for each in messages]
        return Said([shown[0].text] if len(shown) == 1 else listed(shown))

    def _found(self, documents: Sequence[Document]) -> dict[str, AttributeValue]:
        with contained("record what was found"):
            found = [dict(conventions._as_document(document)) for document in documents]  # noqa: SLF001 - its words for them
            return dict(model.flat([("retrieval.documents", found)]))
        return {}

    def _failed(self, run: Run, error: BaseException) -> bool:
        with contained("tell an error"):
            return tell(run.span, error)
        return True

    def _measured(self, run: Run, outputs: dict[str, Any] | None, *, failed: bool) -> dict[str, AttributeValue]:
        seconds = (time.time_ns() - run.began) / 1e9
        with contained("measure a tool call"):
            return measured(run.name, current_turn(), failed=failed, outputs=outputs, seconds=seconds)
        return {}

    def _end(self, run_id: UUID, run: Run, more: Mapping[str, AttributeValue] | None = None) -> None:
        if self._runs.pop(run_id, None) is None:
            return
        self.end_runs(graph_turn.left_open(run_id), cancelled=True, abandoned=False)
        if run.is_model:
            model_call_ended(run_id)
        if run.turn:
            run.turn.open_runs.discard(run_id)
        if run.said and "output.value" not in run.attributes:
            run.attributes |= partial(run.said)
        run.span.set_attributes(self._shown({**run.attributes, **(more or {})}))
        if not run.failed:
            run.span.set_status(StatusCode.OK)
        run.span.end()
        graph_turn.ended(run_id)

    def _shown(self, attributes: dict[str, AttributeValue]) -> Mapping[str, AttributeValue]:
        if not self._hides:
            return attributes
        return {key: kept for key, value in attributes.items() if (kept := self._hides.mask(key, value)) is not None}


def _put(run: Run, place: str, text: str | None) -> None:
    if text is not None:
        run.attributes[f"{place}.value"] = text
        if text[:1] in ("{", "["):
            run.attributes[f"{place}.mime_type"] = "application/json"


def _name(given: str | None, serialized: Any) -> str:
    known = serialized if isinstance(serialized, dict) else {}
    return given or known.get("name") or (known.get("id") or ["Unnamed"])[-1]


def _kind(name: str, run_type: str) -> str:
    return "AGENT" if "agent" in name.lower() else _kind_of(run_type)


@lru_cache(maxsize=64)
def _kind_of(run_type: str) -> str:
    return conventions._langchain_run_type_to_span_kind(run_type).value  # noqa: SLF001 - its words for them


def _filed(metadata: Mapping[str, Any]) -> dict[str, AttributeValue]:
    filed = dict(get_attributes_from_context())
    if metadata:
        filed["metadata"] = dump(metadata)
        if thread := next((metadata[key] for key in _THREADS if metadata.get(key)), None):
            filed["session.id"] = thread
    return filed


def _hides() -> TraceConfig | None:
    config = TraceConfig()
    return config if any(value is True for name, value in vars(config).items() if name.startswith("hide")) else None
