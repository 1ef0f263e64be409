"""Redaction of log records."""

import logging

from telemetry.export.redact.plain import to_plain
from telemetry.export.redact.redactor import Redactor

# The attributes of every record; all others come from `extra`.
OWN = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "otelTraceID", "otelSpanID", "otelTraceSampled"}


class LogFilter(logging.Filter):
    """Redacts log records. Add it to handlers, which see the records of all loggers."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record, for this handler and those after it.

        A record that cannot be formatted is withheld: unlike an error of a handler, that of a filter would reach the
        caller.
        """
        try:
            self._redact(record)
        except Exception:  # noqa: BLE001 - formatting calls the program's own methods
            record.msg, record.args = "[withheld: a log line that cannot be read]", ()
            record.exc_info = record.exc_text = None
        return True

    def _redact(self, record: logging.LogRecord) -> None:
        redact = self._redactor.redact_text
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text and (clean := redact(record.exc_text)) != record.exc_text:
            # A JSON formatter would format the exception itself, unredacted: it gets the text instead.
            record.exc_text, record.exc_info = clean, None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name in record.__dict__.keys() - OWN:
            given = record.__dict__[name]
            plain = to_plain(given)
            clean = self._redactor.redact_field(name, plain)
            if clean != plain:
                record.__dict__[name] = clean
            if (called := redact(name)) != name:
                record.__dict__[called] = record.__dict__.pop(name)
