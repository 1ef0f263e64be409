"""The shape for any backend: the keys stay as they came, errors and HTTP calls become readable."""

from telemetry.otlp import Span
from telemetry.shape import http
from telemetry.shape.error import readable


def openinference(span: Span) -> Span:
    """Return the span with its own keys, errors in one line and HTTP calls named after what they call."""
    attributes = http.stable(span.attributes)
    return readable(span.but(name=http.name(span, attributes), attributes=attributes))
