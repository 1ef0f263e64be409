"""The sampler's own rule: the HTTP call of a model's client is no span beside the model's."""

from collections import Counter
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

_calling: Counter[int] = Counter()


def model_call_began(node_span_id: int) -> None:
    """Note that a model is being called from the node with this span."""
    _calling[node_span_id] += 1


def model_call_ended(node_span_id: int) -> None:
    """Note that the call is over."""
    _calling[node_span_id] -= 1
    if _calling[node_span_id] <= 0:
        del _calling[node_span_id]


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
        parent = get_current_span(parent_context).get_span_context()
        if kind is SpanKind.CLIENT and parent.span_id in _calling:
            return SamplingResult(Decision.DROP, None, parent.trace_state)
        return self._then.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Return its name and the name of the one behind it."""
        return f"ModelHttpSampler({self._then.get_description()})"
