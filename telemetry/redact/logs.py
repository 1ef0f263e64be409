"""The same fence for log lines."""

import logging
from typing import Any

from telemetry.redact.fence import Fence

# What each record has; all else was given with `extra`.
_OWN = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "otelTraceID", "otelSpanID", "otelTraceSampled"}


class LogFilter(logging.Filter):
    """Takes secrets out of what is logged; to be added to handlers, which see the records of all loggers."""

    def __init__(self, fence: Fence) -> None:
        super().__init__()
        self._fence = fence

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the secrets out of the record, for this handler and those after it.

        A line that cannot be read is withheld: unlike a handler's, a filter's failure would reach whoever logs.
        """
        try:
            self._clean(record)
        except Exception:  # noqa: BLE001 - whatever the values of a line do when they are written
            record.msg, record.args = "[withheld: a log line that cannot be read]", ()
            record.exc_info = record.exc_text = None
        return True

    def _clean(self, record: logging.LogRecord) -> None:
        record.msg, record.args = self._fence.text(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._fence.text(record.exc_text)
        if record.stack_info:
            record.stack_info = self._fence.text(record.stack_info)
        for name in record.__dict__.keys() - _OWN:
            record.__dict__[name] = self._extra(name, record.__dict__[name])

    def _extra(self, name: str, value: Any) -> Any:
        return self._fence.field(name, value, self._fence.kinds_in([f"{name}={value}"]))
