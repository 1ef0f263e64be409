"""Failures of telemetry itself: contained, logged once, counted."""

import logging
import os
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_counts: Counter[str] = Counter()


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Keep an exception inside from the program: the first of each kind is logged, all are counted.

    Under pytest it is raised after that, so that no test passes over it.
    """
    try:
        yield
    except Exception as error:
        count(what, error)
        if "PYTEST_CURRENT_TEST" in os.environ:
            raise


def count(what: str, error: Exception) -> None:
    """Count a failure that its place has dealt with; the first of each kind is logged.

    The log line says where it happened and not what the exception says: that may quote the content of a span.
    """
    _counts[what] += 1
    if _counts[what] == 1:
        logger.error(
            "telemetry failed to %s; the program goes on, further failures are only counted\n%s%s",
            what,
            "".join(traceback.format_tb(error.__traceback__)),
            type(error).__qualname__,
        )


def failures() -> dict[str, int]:
    """Return how often each thing failed in this process."""
    return dict(_counts)
