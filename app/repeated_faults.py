"""Limit the log to one traceback per fault and minute."""

import logging
import time
import traceback

INTERVAL_S = 60.0
# The most faults that are distinguished.
_MAX_FAULTS = 100


class OneTracebackPerFault(logging.Filter):
    """Passes a record with a traceback once a minute for each fault: a type of error, raised at one place.

    The next record that passes says how many were dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        # When a record last passed, and how many were dropped since.
        self._faults: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        where = traceback.extract_tb(error.__traceback__)[-1:]
        fault = type(error), *((frame.filename, frame.lineno) for frame in where)
        passed, dropped = self._faults.get(fault, (float("-inf"), 0))
        now = time.monotonic()
        if now - passed < INTERVAL_S:
            self._faults[fault] = passed, dropped + 1
            return False
        if len(self._faults) >= _MAX_FAULTS:
            self._faults.clear()
        self._faults[fault] = now, 0
        if dropped:
            record.msg, record.args = f"{record.getMessage()} (and {dropped} times before)", ()
        return True
