"""Accept spans of a process without keys for the backend: redact them, and spool them with our own."""

from telemetry import pipeline
from telemetry.delivery.spool import Record
from telemetry.delivery.writer import SpoolProcessor
from telemetry.export import otlp


def accept(body: bytes, content_type: str, encoding: str | None, limit: int) -> int:
    """Write the spans of an OTLP request, protobuf or JSON, to the spool, and return their number.

    With tracing off it returns 0. The spans are redacted again, whatever the sender did. It writes to disk. Raises
    `otlp.Malformed` for an invalid request, and `otlp.TooLarge` for one of more than `limit` bytes uncompressed.
    """
    spans = otlp.decode(body, content_type, encoding, limit)
    processor = pipeline.get(SpoolProcessor)
    if processor is None:
        return 0
    redacted = processor.redact_stage.redact_all(spans)
    processor.writer.write_records(
        [_record(span) for span in redacted], [each for span in redacted for each in span.attachments]
    )
    return len(spans)


def _record(span: otlp.RedactedSpan) -> Record:
    return Record(span.end / 1e9, span.trace_id, span.status == "ERROR", otlp.encode(span))
