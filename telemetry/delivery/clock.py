"""A clock for the age of rows: setting the system clock wrong for a while makes nothing old."""

import threading
import time

# A smaller difference is not a jump.
TOLERANCE_S = 60.0
# The system clock is adopted once it has differed for this time.
BELIEVED_AFTER_S = 3600.0


class SteadyClock:
    """The time of day at creation plus the time since then, until a change of the system clock has lasted."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._differs_since: float | None = None
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the seconds since the epoch."""
        elapsed, wall = time.monotonic(), time.time()
        with self._lock:
            if abs(wall - elapsed - self._offset) <= TOLERANCE_S:
                self._offset, self._differs_since = wall - elapsed, None
            elif self._differs_since is None:
                self._differs_since = elapsed
            elif elapsed - self._differs_since > BELIEVED_AFTER_S:
                self._offset, self._differs_since = wall - elapsed, None
            return elapsed + self._offset
