"""Failures of telemetry itself: contained, logged once, counted."""

import logging
import os
import traceback
from collections import Counter

logger = logging.getLogger(__name__)

_counts: Counter[str] = Counter()


class contained:  # noqa: N801 - it stands behind `with`, as those of contextlib do
    """Keep an exception inside from the program: the first of each kind is logged, all are counted.

    Under pytest it is raised after that, so that no test passes over it.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        count(self._what, error)
        return "PYTEST_CURRENT_TEST" not in os.environ


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
