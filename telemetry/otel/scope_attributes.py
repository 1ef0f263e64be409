"""Set the attributes that every span of a turn has, as a span starts."""

from types import MappingProxyType

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanContext
from opentelemetry.util.types import AttributeValue

from telemetry.context import UNTRUSTED_PARENT, scope_attributes
from telemetry.otel.idle_hooks import note_child
from telemetry.otel.local_root import note_root

_SCOPE_ATTRIBUTES = ("session.id", "user.id", "langfuse.trace.")


class ScopeAttributesProcessor(SpanProcessor):
    """Give each span, whatever starts it, the attributes of its scope and of its parent's scope."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the attributes, and link the trace of an untrusted caller."""
        note_root(span, parent_context)
        note_child(trace.get_current_span(parent_context))
        span.set_attributes({**_inherited(parent_context), **scope_attributes(parent_context)})
        untrusted = otel.get_value(UNTRUSTED_PARENT, parent_context)
        if span.parent is None and isinstance(untrusted, SpanContext):
            span.add_link(untrusted)

    def on_end(self, span: ReadableSpan) -> None:
        """Leave the span as it is."""


def _inherited(context: Context | None) -> dict[str, AttributeValue]:
    # Only the first span of a graph that does not run in a turn has the graph's scope.
    parent = trace.get_current_span(context)
    attributes = parent.attributes if isinstance(parent, ReadableSpan) else None
    # Iterating over the SDK's own mapping is slow.
    copied = attributes.copy() if isinstance(attributes, MappingProxyType) else attributes or {}
    return {name: value for name, value in copied.items() if name.startswith(_SCOPE_ATTRIBUTES)}
