"""What stands in the trace for a span that the backend would not take."""

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_REASON = "telemetry.dead_letter"
_NAME = 200


def make_stub(body: bytes, reason: str) -> bytes | None:
    """Return the span of this request without its content, saying why it is so; None if there is no making one.

    It has the span's own ids: the tree stays whole, and the span itself replaces it if it is accepted one day.
    """
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        return None
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                _strip(span, reason, len(body))
    return None if is_stub(body) else request.SerializeToString()


def is_stub(body: bytes) -> bool:
    """Whether this is a stub already: one that is refused has none of its own."""
    return _REASON.encode() in body


def _strip(span: Span, reason: str, size: int) -> None:
    del span.attributes[:], span.events[:], span.links[:]
    span.name = span.name[:_NAME]
    span.trace_state = ""
    span.attributes.extend(
        [
            KeyValue(key=_REASON, value=AnyValue(string_value=reason)),
            KeyValue(key="telemetry.dead_letter.bytes", value=AnyValue(int_value=size)),
            KeyValue(key="langfuse.observation.level", value=AnyValue(string_value="WARNING")),
        ]
    )
    span.status.CopyFrom(Status(code=span.status.code, message=f"The backend refused this span: {reason}"))
