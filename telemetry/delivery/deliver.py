"""What waits in the spools goes to the backend, as often as it takes; nothing leaves before it was accepted."""

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from opentelemetry.instrumentation.utils import suppress_instrumentation

from telemetry import failures
from telemetry.delivery.post import Answer
from telemetry.delivery.spool import SPAN, Row, Spool
from telemetry.delivery.stub import is_stub, make_stub

logger = logging.getLogger(__name__)

MOST_ROWS = 4096
SMALLEST_REQUEST = 1024
# So many bytes are not worth a request of their own at once; what comes in the next moment may go with them.
PRESSING = 256 * 1024
# How long to wait after a failure: doubled each time up to the most; for what only a person can help, the slow one.
FIRST_WAIT_S = 0.5
MOST_WAIT_S = 30.0
SLOW_WAIT_S = 60.0
# So often must the same batch fail before it is halved, whatever the answer: it may be too much for a timeout.
PATIENCE = 3
# So often must a span be answered 500, with others accepted in between, before it counts as the cause.
STRIKES = 5
# How long an idle round lasts: then dead owners' files are looked for.
TICK_S = 1.0


@dataclass
class Backend:
    """How the backend has behaved towards this process."""

    most_bytes: int
    accepted: int = 0
    buried: int = 0
    failures: int = 0
    last_success: float | None = None
    last_error: tuple[float, str] | None = None
    answer: Answer | None = None

    @property
    def is_down(self) -> bool:
        """Whether its latest answer was a refusal of more than one batch's content."""
        return self.failures > 0

    def heard(self, answer: Answer, rows: int) -> None:
        """Note an answer."""
        self.answer = answer
        if answer.accepted:
            self.accepted += rows
            self.failures = 0
            self.last_success = time.time()
        else:
            self.last_error = (time.time(), str(answer))

    def pause(self, answer: Answer) -> float:
        """Note that nothing goes on for now; returns for how many seconds."""
        self.failures += 1
        wait = min(FIRST_WAIT_S * 2 ** min(self.failures - 1, 16), MOST_WAIT_S)
        if answer.blames_settings:
            wait = SLOW_WAIT_S
        return max(wait * random.uniform(0.8, 1.2), answer.retry_after_s)  # noqa: S311 - spreads retries, no secret


@dataclass
class Lane:
    """The rows of one kind in one spool, posted in order."""

    spool: Spool
    backend: Backend
    post: Callable[[Sequence[Row]], Answer]
    kind: str = SPAN
    most_rows: int = MOST_ROWS
    _tries: int = 0
    _suspect: int = 0
    _strikes: int = 0
    _accepted: int = 0
    _rests_until: float = 0.0

    def step(self) -> float | None:
        """Post one batch; returns for how long nothing at all should be posted, None if nothing presses."""
        if time.monotonic() < self._rests_until:
            return None
        rows = self.spool.take(self.kind, self.backend.most_bytes, self.most_rows)
        if not rows:
            return None
        answer = self._ask(rows)
        if not answer.accepted:
            return self._refused(rows, answer)
        more = len(rows) == self.most_rows
        self._went(rows)
        return 0.0 if more or self.spool.size > PRESSING else None

    def _ask(self, rows: Sequence[Row]) -> Answer:
        answer = self.post(rows)
        self.backend.heard(answer, len(rows))
        return answer

    def _went(self, rows: Sequence[Row]) -> None:
        self.spool.accept(rows)
        self.most_rows = min(MOST_ROWS, self.most_rows * 2)
        self._tries = 0

    def _refused(self, rows: Sequence[Row], answer: Answer) -> float:
        self._tries += 1
        if len(rows) == 1 and answer.may_blame_content:
            self._judge(rows[0], answer)
            return 0.0
        if len(rows) > 1 and (answer.blames_content or self._tries >= PATIENCE):
            self._halve(rows, answer)
        return 0.0 if answer.blames_content else self.backend.pause(answer)

    def _halve(self, rows: Sequence[Row], answer: Answer) -> None:
        self._tries = 0
        self.most_rows = len(rows) // 2
        if answer.status == 413:
            size = sum(len(row.body) for row in rows)
            self.backend.most_bytes = max(size // 2, SMALLEST_REQUEST)

    def _judge(self, row: Row, answer: Answer) -> None:
        """Decide about a span that was refused alone: it is to blame only if the backend takes others meanwhile."""
        if self._suspect != row.seq:
            self._suspect, self._strikes, self._accepted = row.seq, 0, self.backend.accepted
        if self._another_passes(row):
            answer = self._ask([row])
            self._strikes, self._accepted = self._strikes + 1, self.backend.accepted
            if answer.accepted:
                return self._went([row])
            if answer.blames_content or (answer.may_blame_content and self._strikes >= STRIKES):
                return self._bury(row, answer)
        self._rests_until = time.monotonic() + self.backend.pause(answer)
        return None

    def _another_passes(self, suspect: Row) -> bool:
        others = self._others(suspect)
        while self.backend.accepted == self._accepted and (other := next(others, None)):
            answer = self._ask([other])
            if answer.accepted:
                self.spool.remove(other)
            elif not answer.may_blame_content:
                break
        return self.backend.accepted > self._accepted

    def _others(self, suspect: Row) -> Iterator[Row]:
        """Yield ever more distant rows: the next ones may be of the same bad kind."""
        skip = 0
        while rows := self.spool.take(self.kind, 0, 1, after=suspect.seq, skip=skip):
            yield rows[0]
            skip = 2 * skip + 1

    def _bury(self, row: Row, answer: Answer) -> None:
        logger.error("the backend refuses one span for good, it goes to the dead letters: %s", answer)
        stub = make_stub(row.body, str(answer))
        try:
            self.spool.bury(row, str(answer), stub)
        except sqlite3.OperationalError:
            # A full disk has no room for what nobody takes: the stub tells of it, and what waits behind goes on.
            answer = self._ask([row._replace(body=stub)]) if stub else answer
            if not (answer.accepted or answer.blames_content):
                raise
            self._went([row])
        self.backend.buried += not is_stub(row.body)


class Deliverer:
    """A thread that posts what waits in the spools, a batch of each in turn; it calls `tick` about once a second.

    `broken` is told of a spool that cannot be read.
    """

    def __init__(
        self,
        post: Callable[[bytes], Answer],
        spools: Callable[[], Sequence[Spool]],
        tick: Callable[[], None],
        broken: Callable[[Spool], None],
        *,
        most_bytes: int,
        interval_s: float,
    ) -> None:
        self.backend = Backend(most_bytes)
        self._post = post
        self._spools = spools
        self._tick = tick
        self._broken = broken
        self._interval_s = interval_s
        self._lanes: dict[Spool, Lane] = {}
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stopping = threading.Event()
        self._answered = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="telemetry-delivery", daemon=True)
        self._next_tick = 0.0
        self._resumes_at = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def state(self) -> str:
        """How the backend behaves, in a word: unheard, ok, down, refusing."""
        answer = self.backend.answer
        if answer is None:
            return "unheard"
        if not self.backend.is_down:
            return "ok"
        return "refusing" if answer.blames_settings or answer.blames_content else "down"

    def wake(self) -> None:
        """Tell it that something waits."""
        if not self._wake.is_set():
            self._wake.set()

    def drain(self, spools: Sequence[Spool], seconds: float) -> bool:
        """Return as soon as these are empty, the backend is down, or no answer has come for so long."""
        self._hurry.set()
        self._wake.set()
        accepted, deadline = self.backend.accepted, time.monotonic() + seconds
        try:
            with self._answered:
                while not (empty := all(spool.is_empty for spool in spools)) and not self.backend.is_down:
                    if not self._answered.wait(max(0.0, deadline - time.monotonic())):
                        break
                    if self.backend.accepted > accepted:
                        accepted, deadline = self.backend.accepted, time.monotonic() + seconds
            return empty
        finally:
            self._hurry.clear()

    def stop(self, seconds: float) -> None:
        """End the thread, which may be waiting for an answer for longer than one wants to wait."""
        self._stopping.set()
        self._hurry.set()
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        with suppress_instrumentation():
            while not self._stopping.is_set():
                try:
                    pause = self._round()
                except Exception as error:  # noqa: BLE001 - whatever broke, what waits is still there
                    pause = self._broke(error)
                with self._answered:
                    self._answered.notify_all()
                self._rest(pause)

    def _broke(self, error: Exception) -> float:
        # What becomes of an answer that came after the end is for the next process.
        if not self._stopping.is_set():
            failures.count("deliver", error)
        return TICK_S

    def _round(self) -> float | None:
        """Post one batch of each spool; returns for how long to pause, None if nothing waits anywhere."""
        if time.monotonic() >= self._next_tick:
            self._tick()
            self._next_tick = time.monotonic() + TICK_S
        # What is too old goes, and what is asked for is known, however long the backend wants to be left alone.
        if (left := self._resumes_at - time.monotonic()) > 0:
            return min(left, TICK_S)
        self._wake.clear()
        pauses = []
        for lane in self._present():
            pause = self._step(lane)
            if pause:
                self._resumes_at = time.monotonic() + pause
                return min(pause, TICK_S)
            pauses.append(pause)
        return None if all(pause is None for pause in pauses) else 0.0

    def _step(self, lane: Lane) -> float | None:
        try:
            return lane.step()
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):
            raise
        except sqlite3.DatabaseError:
            self._broken(lane.spool)
            return 0.0

    def _present(self) -> list[Lane]:
        self._lanes = {
            spool: self._lanes.get(spool) or Lane(spool, self.backend, self._send) for spool in self._spools()
        }
        return list(self._lanes.values())

    def _send(self, rows: Sequence[Row]) -> Answer:
        return self._post(b"".join(row.body for row in rows))

    def _rest(self, pause: float | None) -> None:
        if pause is None:
            self._wake.wait(TICK_S)
            # Spans come in swarms: those of the next moment may go along.
            self._hurry.wait(self._interval_s)
        elif pause:
            self._stopping.wait(pause)
