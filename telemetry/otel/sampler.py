"""Leave out the spans of HTTP calls that a model's own client makes, and of calls to the traces' backend."""

from collections.abc import Sequence
from contextvars import ContextVar
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from telemetry import pipeline
from telemetry.otel.model_calls import is_model_call, is_request_of, open_model_call

_current_call: ContextVar[UUID | None] = ContextVar("telemetry-model-call", default=None)


class _OpenCalls(set[UUID]):
    """The runs of models that have been called and have not started to answer."""


def model_call_began(run_id: UUID) -> None:
    """Note that the current code calls a model; tasks that it has started before are not affected."""
    pipeline.shared(_OpenCalls).add(run_id)
    _current_call.set(run_id)


def model_call_ended(run_id: UUID) -> None:
    """Note that the model has started to answer, or never will."""
    pipeline.shared(_OpenCalls).discard(run_id)


def _is_bare(attributes: Attributes) -> bool:
    """Return whether a model call is recorded by its provider's own client: without what was said."""
    return not any(key.startswith(("openinference.", "gen_ai.input.")) for key in attributes or ())


class HttpCallSampler(Sampler):
    """Ask the next sampler, but drop calls that a model's own client makes, and calls to the backend.

    The model's span already has their duration, error and usage. `backends` are what addresses at the
    backend begin with: the service that passes spans on may have the same host. With `records_all`, spans that the next
    sampler drops are recorded and not sent, so that metrics count them.
    """

    def __init__(
        self,
        next_sampler: Sampler,
        *,
        backends: Sequence[str] = (),
        model_http: bool = False,
        records_all: bool = False,
    ) -> None:
        self._next = next_sampler
        self._backends = tuple(backends)
        self._model_http = model_http
        self._records_all = records_all

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Return the decision."""
        if self._is_dropped(kind, attributes, parent_context):
            state = get_current_span(parent_context).get_span_context().trace_state
            return SamplingResult(Decision.DROP, None, state)
        result = self._next.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if self._records_all and result.decision is Decision.DROP:
            return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)
        return result

    def get_description(self) -> str:
        """Return its name and the name of the next one."""
        return f"HttpCallSampler({self._next.get_description()})"

    def _is_dropped(self, kind: SpanKind | None, attributes: Attributes, context: Context | None) -> bool:
        if kind is SpanKind.CLIENT and self._is_to_backend(attributes):
            return True
        within_langchains = _current_call.get() in pipeline.shared(_OpenCalls)
        if is_model_call(attributes):
            # The client below says again, or says less, what the span around says of the same call.
            return within_langchains or (_is_bare(attributes) and open_model_call(context) is not None)
        if kind is not SpanKind.CLIENT or self._model_http:
            return False
        if within_langchains:
            return True
        call = open_model_call(context)
        return call is not None and is_request_of(call, attributes)

    def _is_to_backend(self, attributes: Attributes) -> bool:
        url = (attributes or {}).get("url.full") if self._backends else None
        return isinstance(url, str) and url.startswith(self._backends)
