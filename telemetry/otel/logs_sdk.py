"""OpenTelemetry's logs for Python, whose modules have private names (`_logs`) until they are stable: only here.

If one is renamed, the records of the service are not sent; nothing else depends on it.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

# Releases without `ReadWriteLogRecord` export records of another kind only.
from opentelemetry.sdk._logs import LoggerProvider, ReadWriteLogRecord  # noqa: F401 - see above
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

Attributes = Mapping[str, Any]


class _Event(LogRecord):
    """An event whose attributes are built when it is sent."""

    def __init__(self, build: Callable[[], Attributes | None], **fields: Any) -> None:
        super().__init__(**fields)
        self._build = build

    def is_built(self) -> bool:
        """Build the attributes; return whether the event can be sent."""
        attributes = self._build()
        self.attributes = attributes or {}
        return attributes is not None


class _Exporter(OTLPLogExporter):
    """The SDK's exporter, which first builds the attributes of events."""

    def export(self, batch: Sequence[Any]) -> Any:
        """Send the records, except events whose attributes cannot be built."""
        records = (each.log_record for each in batch)
        is_sent = [not isinstance(record, _Event) or record.is_built() for record in records]
        return super().export(list(compress(batch, is_sent)))


class LogPipeline:
    """Sends log records over OTLP from a thread of the SDK's; the last ones when it is flushed."""

    def __init__(self, endpoint: str | None, resource: Resource) -> None:
        # It would wait for a backend that is down.
        self._provider = LoggerProvider(resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(_Exporter(endpoint)))

    def emit(
        self,
        logger: str,
        body: str,
        *,
        at_ns: int,
        level: tuple[int, str],
        attributes: Attributes,
    ) -> None:
        """Enqueue a record, with the trace of the current context; `level` is logging's number and name."""
        self._provider.get_logger(logger).emit(
            LogRecord(
                timestamp=at_ns,
                observed_timestamp=time.time_ns(),
                severity_number=_severity(level[0]),
                severity_text=level[1],
                body=body,
                attributes=attributes,
            )
        )

    def emit_event(
        self,
        logger: str,
        name: str,
        *,
        at_ns: int | None,
        of: SpanContext,
        level: int = logging.INFO,
        build: Callable[[], Attributes | None],
    ) -> None:
        """Enqueue an event of this span; `build` returns its attributes when it is sent, or None if it must not be."""
        self._provider.get_logger(logger).emit(
            _Event(
                build,
                timestamp=at_ns,
                observed_timestamp=time.time_ns(),
                context=set_span_in_context(NonRecordingSpan(of), Context()),
                severity_number=_severity(level),
                event_name=name,
            )
        )

    def flush(self, seconds: float) -> None:
        """Send what is left."""
        self._provider.force_flush(round(seconds * 1000))


def _severity(level: int) -> SeverityNumber:
    # Ten of logging's levels are four of OpenTelemetry's: INFO is 20 and 9.
    return SeverityNumber(min(max(level * 4 // 10 + 1, 1), 24))
