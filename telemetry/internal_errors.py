"""Handle errors of telemetry itself: the program never sees them, they are logged once and counted."""

import logging
import os
import traceback
from collections import Counter

from telemetry import pipeline

logger = logging.getLogger(__name__)


class _Counts(Counter[str]):
    """How often each action failed in this process."""


class handle_internal_errors:  # noqa: N801 - used with `with`, as those of contextlib are
    """Suppress exceptions inside: log the first of each action, count all.

    Under pytest they are raised after that, so that no test ignores them.
    """

    __slots__ = ("_action",)

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        record(self._action, error)
        return "PYTEST_CURRENT_TEST" not in os.environ


def record(action: str, error: Exception) -> None:
    """Count an error that has been handled, and log the first of each action.

    The log line has the stack, but not the exception's message, which may quote the content of a span.
    """
    errors = pipeline.shared(_Counts)
    errors[action] += 1
    if errors[action] == 1:
        logger.error(
            "telemetry failed to %s; the program continues, and further failures are only counted\n%s%s",
            action,
            "".join(traceback.format_tb(error.__traceback__)),
            type(error).__qualname__,
        )


def counts() -> dict[str, int]:
    """Return how often each action failed in this process."""
    return dict(pipeline.shared(_Counts))


def reset() -> None:
    """Forget all errors, so that the next one is logged again."""
    pipeline.remove(_Counts)
