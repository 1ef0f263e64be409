"""Replace a span that the backend rejects by a stub."""

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_REASON = "telemetry.dead_letter"
_NAME = 200


def make_stub(body: bytes, reason: str) -> bytes | None:
    """Return the span of this request without its content and with the reason; None if the request cannot be read.

    It has the span's own ids: the tree stays complete, and the span replaces the stub if it is accepted later.
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
    """Return whether this is a stub, which is not replaced by another one."""
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
