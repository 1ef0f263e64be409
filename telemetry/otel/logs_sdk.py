"""OpenTelemetry's logs for Python, whose modules have private names (`_logs`) until they are stable: only here.

If one is renamed, the records of the service are not sent; nothing else depends on it.
"""

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

# Releases without `ReadWriteLogRecord` export records of another kind only.
from opentelemetry.sdk._logs import LoggerProvider, ReadWriteLogRecord  # noqa: F401 - see above
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource


class LogPipeline:
    """Sends log records over OTLP from a thread of the SDK's; the last ones when it is flushed."""

    def __init__(self, endpoint: str | None, resource: Resource) -> None:
        # It would wait for a backend that is down.
        self._provider = LoggerProvider(resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint)))

    def emit(
        self,
        logger: str,
        body: str,
        *,
        at_ns: int,
        level: tuple[int, str],
        attributes: Mapping[str, Any],
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

    def flush(self, seconds: float) -> None:
        """Send what is left."""
        self._provider.force_flush(round(seconds * 1000))


def _severity(level: int) -> SeverityNumber:
    # Ten of logging's levels are four of OpenTelemetry's: INFO is 20 and 9.
    return SeverityNumber(min(max(level * 4 // 10 + 1, 1), 24))
