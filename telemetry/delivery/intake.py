"""Spans of another process that has no key of the backend's: redacted, and spooled with our own."""

from telemetry import otlp, provider
from telemetry.delivery.spools import Record


def accept(body: bytes, content_type: str, encoding: str | None, limit: int) -> int:
    """Take the spans of an OTLP request, protobuf or JSON, into the spool, and return how many they were.

    With tracing off they are none. They pass our own fence, whatever they passed before. It writes to disk. Raises
    `otlp.Malformed` for a request that is, and `otlp.TooLarge` for one that unpacks to more than `limit` bytes.
    """
    spans = otlp.decode(body, content_type, encoding, limit)
    pipeline = provider.pipeline()
    if pipeline is None or pipeline.spooling is None:
        return 0
    pipeline.spooling.outbox.take([_record(pipeline.spooling.fence(span)) for span in spans])
    return len(spans)


def _record(span: otlp.Span) -> Record:
    return Record(span.end / 1e9, span.trace_id, span.status == "ERROR", otlp.encode(span))
