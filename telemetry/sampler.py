"""The sampler's own rule: the HTTP call of a model's client is no span beside the model's."""

from collections.abc import Sequence
from contextvars import ContextVar
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

_waiting: set[UUID] = set()
_asked: ContextVar[UUID | None] = ContextVar("telemetry-model-call", default=None)


def model_call_began(run_id: UUID) -> None:
    """Note that the current code asks a model; what its task does beside, in tasks of their own, is not meant."""
    _waiting.add(run_id)
    _asked.set(run_id)


def model_call_ended(run_id: UUID) -> None:
    """Note that the model has begun to answer, or never will."""
    _waiting.discard(run_id)


class ModelHttpSampler(Sampler):
    """Asks the sampler behind it, but leaves out the calls that a model's own client makes.

    The model's span has their time, their error and their usage already.
    """

    def __init__(self, then: Sampler) -> None:
        self._then = then

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
        if kind is SpanKind.CLIENT and _asked.get() in _waiting:
            state = get_current_span(parent_context).get_span_context().trace_state
            return SamplingResult(Decision.DROP, None, state)
        return self._then.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Return its name and the name of the one behind it."""
        return f"ModelHttpSampler({self._then.get_description()})"
