"""Export a trace as OTLP/JSON, which every OTLP backend accepts."""

import base64
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.export import otlp

IDS = {"traceId", "spanId", "parentSpanId"}


def otlp_json(spans: Iterable[otlp.Span]) -> dict[str, Any]:
    """Return the spans as the JSON of an export request."""
    # Stored spans were redacted by their sender.
    bodies = (otlp.encode(otlp.RedactedSpan.of(span)) for span in spans)
    request = ExportTraceServiceRequest.FromString(b"".join(bodies))
    return _with_hex_ids(MessageToDict(request, use_integers_for_enums=True))


def _with_hex_ids(value: Any) -> Any:
    """Write ids in hex, as OTLP/JSON requires; the JSON of protobuf has base64."""
    if isinstance(value, list):
        return [_with_hex_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.b64decode(item).hex() if name in IDS and isinstance(item, str) else _with_hex_ids(item)
        for name, item in value.items()
    }
