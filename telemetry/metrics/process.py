"""The metrics of this process, if they are on: their provider, and how often they were sent."""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.metrics import MeterProvider

from telemetry import pipeline

logger = logging.getLogger(__name__)


@dataclass
class Metrics:
    """The meter provider in use; `exports` counts the requests that were `sent` and that `failed`."""

    provider: MeterProvider
    exports: Counter[str] = field(default_factory=lambda: Counter(sent=0, failed=0))

    def flush(self, seconds: float) -> None:
        """Send what has been recorded so far; return after this time at the latest."""
        send = getattr(self.provider, "force_flush", None)
        if send is None:
            return
        # The exporter retries as long as its own timeout allows, whatever it is told here.
        thread = threading.Thread(target=_try, args=(send, seconds * 1000), name="telemetry-metrics", daemon=True)
        thread.start()
        thread.join(seconds)


def flush(seconds: float) -> None:
    """Send the metrics recorded so far, if metrics are on."""
    if part := pipeline.get(Metrics):
        part.flush(seconds)


def _try(send: Callable[[float], object], milliseconds: float) -> None:
    try:
        send(milliseconds)
    except Exception as error:  # noqa: BLE001 - the readers of a program's own provider may raise anything
        logger.warning("metrics could not be sent: %s", error)
