"""Spans of another process that has no key of the backend's: redacted, and spooled with our own."""

from telemetry import otlp, provider
from telemetry.settings import load_settings
from telemetry.spools import Record
from telemetry.wire import redact


def accept(body: bytes, content_type: str, encoding: str | None, limit: int) -> int:
    """Take the spans of an OTLP request, protobuf or JSON, into the spool, and return how many they were.

    None with tracing off. They pass our own fence, whatever they passed before. It writes to disk. Raises
    `otlp.Malformed` for a request that is, and `otlp.TooLarge` for one that unpacks to more than `limit` bytes.
    """
    spans = otlp.decode(body, content_type, encoding, limit)
    pipeline = provider.pipeline()
    if pipeline is None or pipeline.spooling is None:
        return 0
    fence = redact(load_settings())
    pipeline.spooling.outbox.take([_record(fence(span)) for span in spans])
    return len(spans)


def _record(span: otlp.Span) -> Record:
    return Record(span.end / 1e9, span.trace_id, span.status == "ERROR", otlp.encode(span))
