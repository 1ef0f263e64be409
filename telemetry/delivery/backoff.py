"""The state of one backend as seen by this process, and the delays after its failures."""

import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from telemetry.delivery.http import Response

logger = logging.getLogger(__name__)

# The program's own random numbers, which it may have seeded, are not drawn from.
_random = random.Random()  # noqa: S311 - spreads retries, no secret

# The delay after a failure doubles with each one, up to the maximum.
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
# For errors that a person has to correct: wrong keys, wrong path.
CONFIG_ERROR_DELAY_S = 60.0


@dataclass
class BackendState:
    """What this process knows about one backend."""

    # The largest request; lowered when the backend rejects one as too large.
    max_request_bytes: int = 0
    accepted: int = 0
    rejected: int = 0
    dead_letters: int = 0
    # Files that were refused for good.
    refused: int = 0
    failures: int = 0
    last_success: float | None = None
    last_error: tuple[float, str] | None = None
    response: Response | None = None

    @property
    def is_down(self) -> bool:
        """Whether its latest response was a failure that does not concern one request's content only."""
        return self.failures > 0

    @property
    def summary(self) -> str:
        """Its state in one word: unheard (no response yet), ok, down, refusing."""
        if self.response is None:
            return "unheard"
        if not self.is_down:
            return "ok"
        return "refusing" if self.response.is_config_error or self.response.is_payload_error else "down"

    def record_response(self, response: Response, rows: int = 1) -> None:
        """Record the response to a request with this number of rows."""
        self.response = response
        if response.accepted:
            self.accepted += rows - response.rejected
            self.rejected += response.rejected
            self.failures = 0
            self.last_success = time.time()
        if response.rejected and (self.last_error is None or self.last_error[1] != str(response)):
            logger.error("the backend has rejected %d spans: %s", response.rejected, response)
        if response.rejected or not response.accepted:
            self.last_error = (time.time(), str(response))

    def back_off(self, response: Response) -> float:
        """Count a failure, and return for how many seconds to send nothing."""
        self.failures += 1
        delay = min(FIRST_DELAY_S * 2 ** min(self.failures - 1, 16), MAX_DELAY_S)
        if response.is_config_error:
            delay = CONFIG_ERROR_DELAY_S
        return max(delay * _random.uniform(0.8, 1.2), response.retry_after_s)

    def last_events(self) -> dict[str, Any]:
        """Return when a request was last accepted, and the last error with its time, as plain data."""
        error = self.last_error
        return {
            "last_success": _iso(self.last_success),
            "last_error": {"at": _iso(error[0]), "what": error[1]} if error else None,
        }


class Pausable:
    """What is sent in turns with others, and may have to wait alone."""

    def __init__(self) -> None:
        self._paused_until = 0.0

    @property
    def is_paused(self) -> bool:
        """Whether nothing of this is to be sent now."""
        return time.monotonic() < self._paused_until

    def pause(self, seconds: float) -> None:
        """Send nothing of this for this time."""
        self._paused_until = time.monotonic() + seconds


def _iso(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds") if at else None
