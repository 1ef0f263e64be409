"""Log records that say which trace they belong to, and keep secrets to themselves."""

import logging
from typing import Any

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from telemetry import wire
from telemetry.redact import LogFilter
from telemetry.settings import load_settings


class Correlated:
    """Makes log records with the ids of the current span, under the names that OpenTelemetry's convention has."""

    def __init__(self) -> None:
        self._make = logging.getLogRecordFactory()

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Return the record; `0` stands for no trace."""
        record = self._make(*args, **kwargs)
        current = get_current_span().get_span_context()
        record.otelTraceID = format_trace_id(current.trace_id) if current.is_valid else "0"
        record.otelSpanID = format_span_id(current.span_id) if current.is_valid else "0"
        record.otelTraceSampled = current.trace_flags.sampled
        return record

    def undo(self) -> None:
        """Make records as before, unless somebody else has changed their making since."""
        if logging.getLogRecordFactory() is self:
            logging.setLogRecordFactory(self._make)


def correlate() -> Correlated:
    """Give every log record of the process the ids of its trace."""
    correlated = Correlated()
    logging.setLogRecordFactory(correlated)
    return correlated


def guard_logs() -> None:
    """Take secrets out of whatever the root logger's present handlers write, by the fence that spans pass."""
    fence = LogFilter(wire.fence(load_settings()))
    for handler in logging.getLogger().handlers:
        handler.addFilter(fence)
