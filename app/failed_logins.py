"""The throttle of logins that fail, by the address that they come from."""

import logging
import time
from collections import OrderedDict
from threading import Lock

logger = logging.getLogger(__name__)

MAX_FAILURES = 10
WINDOW_S = 60
_MAX_ADDRESSES = 10_000


class FailedLogins:
    """Counts the failed logins of each address: after `MAX_FAILURES` within a minute it has to wait for the next."""

    def __init__(self) -> None:
        # When an address' minute began, and its failures since.
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = Lock()

    def wait_s(self, address: str) -> int:
        """Return the seconds for which nothing is taken from an address, 0 where it may try."""
        began, failures = self._current(address)
        return round(began + WINDOW_S - time.monotonic()) + 1 if failures >= MAX_FAILURES else 0

    def record(self, address: str, reason: str) -> None:
        """Count and log a failure; from the limit on an address logs nothing before its next minute."""
        with self._lock:
            began, failures = self._current(address)
            self._counts[address] = began, failures + 1
            self._counts.move_to_end(address)
            if len(self._counts) > _MAX_ADDRESSES:
                self._counts.popitem(last=False)
        if failures + 1 == MAX_FAILURES:
            logger.warning(
                "%d logins from %s failed within a minute: no more are accepted for now", MAX_FAILURES, address
            )
        elif failures + 1 < MAX_FAILURES:
            logger.warning("a login from %s failed: %s", address, reason)

    def _current(self, address: str) -> tuple[float, int]:
        began, failures = self._counts.get(address, (0, 0))
        now = time.monotonic()
        return (began, failures) if failures and now < began + WINDOW_S else (now, 0)
