"""The same fence for log lines."""

import logging

from telemetry.redact.fence import Fence


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
