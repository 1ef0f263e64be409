"""Store and delete scores at once, or as late as a Langfuse server, which takes both from queues."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from telemetry.viewer.score import Score
from telemetry.viewer.store import Store


class _Waiting(NamedTuple):
    due: float
    action: Callable[[], object]


class ScoreQueue:
    """Scores that were accepted and are not stored yet, and deletions that are not executed yet.

    Args:
        store: where the scores are in the end.
        delay_s: seconds from a score to when it can be read.
        deletion_interval_s: deletions are executed together, each time when so many seconds are over.
    """

    def __init__(self, store: Store, delay_s: float = 0.0, deletion_interval_s: float = 0.0) -> None:
        self._store = store
        self._delay_s = delay_s
        self._deletion_interval_s = deletion_interval_s
        self._lock = threading.Lock()
        self._waiting: dict[threading.Timer, _Waiting] = {}

    def add(self, scores: Sequence[Score]) -> None:
        """Store the scores when they are due."""
        if not self._delay_s:
            return self._store.add_scores(scores)
        return self._wait(self._delay_s, lambda: self._store.add_scores(scores))

    def delete(self, score_id: str) -> bool:
        """Delete the score when the deletions are due; return False if that is now, and there is none."""
        if not self._deletion_interval_s:
            return self._store.delete_score(score_id)
        seconds = self._deletion_interval_s - time.monotonic() % self._deletion_interval_s
        self._wait(seconds, lambda: self._store.delete_score(score_id))
        return True

    def close(self) -> None:
        """Do at once what is still waiting."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for timer in waiting:
            timer.cancel()
        for each in sorted(waiting.values(), key=lambda each: each.due):
            each.action()

    def _wait(self, seconds: float, action: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, lambda: self._execute(timer))
        with self._lock:
            self._waiting[timer] = _Waiting(time.monotonic() + seconds, action)
        timer.start()

    def _execute(self, timer: threading.Timer) -> None:
        with self._lock:
            due = self._waiting.pop(timer, None)
            if due:
                due.action()
