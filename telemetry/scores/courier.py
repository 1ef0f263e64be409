"""A thread that brings the scores of one box to their place, as often as it takes."""

import random
import threading
import time
from collections.abc import Callable

from opentelemetry.instrumentation.utils import suppress_instrumentation

from telemetry.delivery.post import Answer
from telemetry.failures import contained
from telemetry.scores.box import Box, Row
from telemetry.scores.score import Score

Place = Callable[[Score], Answer]

BATCH = 100
# How often a look is taken at what other processes have left.
IDLE_S = 5.0
# While another process delivers.
YIELD_S = 0.05
FIRST_WAIT_S = 0.5
MOST_WAIT_S = 30.0
# So many scores may be answered 500 before it is the place that is down.
MOST_FAILED = 3
# What a place has in its queues it may not know yet: a score that is taken back, a run that is judged.
SETTLED_S = 30.0


class Courier:
    """Delivers in the order given; what fails is tried again without end, what is refused for good is put aside."""

    def __init__(self, box: Box, place: Place) -> None:
        self.box = box
        self.figures = box.figures()
        self.delivered = 0
        self.last_success: float | None = None
        self.last_error: tuple[float, str] | None = None
        self._place = place
        self._failures = 0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-scores", daemon=True)

    @property
    def is_down(self) -> bool:
        """Whether the place's latest answer was no answer to a score."""
        return self._failures > 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, score: Score) -> int:
        """Keep a score for delivery, and return the number of its row."""
        number = self.box.put(score.score_id, score.model_dump_json())
        self.figures = self.box.figures()
        self._wake.set()
        return number

    def stop(self, seconds: float) -> None:
        """Deliver what can be delivered at once, and end."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        with suppress_instrumentation():
            while True:
                self._wake.clear()
                pause = IDLE_S
                with contained("deliver scores"):
                    pause = self._round()
                    self.figures = self.box.figures()
                if self._stopping.is_set():
                    return
                # A place that is down is not asked more often because more is said.
                (self._stopping if self.is_down else self._wake).wait(pause)

    def _round(self) -> float:
        """Deliver what waits; returns for how long to pause."""
        with self.box.alone() as alone:
            if not alone:
                return YIELD_S
            return self._deliver()

    def _deliver(self) -> float:
        rows, failed = self.box.rows(BATCH), 0
        for row in rows:
            score = Score.model_validate_json(row.body)
            answer = self._place(score)
            self._note(answer)
            if _failed(answer):
                failed += 1
                if failed >= MOST_FAILED or answer.status != 500:
                    return self._pause(answer)
            else:
                self._settle(row, score, answer)
        self._failures = 0
        return 0.0 if len(rows) == BATCH and not failed else IDLE_S

    def _settle(self, row: Row, score: Score, answer: Answer) -> None:
        unknown = answer.status == 404
        if unknown and time.time() - row.at < SETTLED_S:
            return
        if answer.accepted or (unknown and score.value is None):
            self.box.accept(row)
            self.delivered += 1
        else:
            self.box.refuse(row, str(answer))

    def _note(self, answer: Answer) -> None:
        if answer.accepted:
            self._failures, self.last_success = 0, time.time()
        else:
            self.last_error = (time.time(), str(answer))

    def _pause(self, answer: Answer) -> float:
        self._failures += 1
        wait = min(FIRST_WAIT_S * 2 ** min(self._failures - 1, 16), MOST_WAIT_S)
        return max(wait * random.uniform(0.8, 1.2), answer.retry_after_s)  # noqa: S311 - spreads retries, no secret


def _failed(answer: Answer) -> bool:
    """Whether it says nothing about this score: another time it may be taken."""
    return not (answer.accepted or answer.blames_content or answer.status == 404)
