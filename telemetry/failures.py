"""Failures of telemetry itself: contained, logged once, counted."""

import logging
import os
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
    except Exception:
        _counts[what] += 1
        if _counts[what] == 1:
            logger.exception("telemetry failed to %s; the program goes on, further failures are only counted", what)
        if "PYTEST_CURRENT_TEST" in os.environ:
            raise


def failures() -> dict[str, int]:
    """Return how often each thing failed in this process."""
    return dict(_counts)
