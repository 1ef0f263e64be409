"""Send waiting rows until the backend has accepted them, in a thread."""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from opentelemetry.instrumentation.utils import suppress_instrumentation

from telemetry import internal_errors
from telemetry.delivery.backoff import BackendState
from telemetry.delivery.store import is_transient

# The length of an idle round, after which the sender looks for files of dead processes.
IDLE_S = 1.0


class Drainable(Protocol):
    """A store that `drain` waits for."""

    @property
    def is_empty(self) -> bool:
        """Whether no rows are left that could be sent now."""
        ...


class Batches(Protocol):
    """The rows of one store for one backend, in the order in which they are sent."""

    def send_next(self) -> float | None:
        """Send a batch; return for how many seconds to send nothing, None if no rows have to be sent now.

        Raises `sqlite3.Error` if the store cannot be read or written.
        """
        ...

    def pause(self, seconds: float) -> None:
        """Send nothing of this store for this time."""

    def replace_unreadable(self) -> None:
        """Set an unreadable store aside."""


class Sender:
    """A thread that sends a batch of each store in turn to one backend, and calls `maintain` once per idle round."""

    def __init__(
        self,
        name: str,
        batches: Callable[[], Sequence[Batches]],
        state: BackendState,
        *,
        maintain: Callable[[], None] = lambda: None,
        idle_s: float | None = None,
        gather_s: float = 0.0,
    ) -> None:
        self.state = state
        self._batches = batches
        self._maintain = maintain
        self._idle_s = idle_s or IDLE_S
        self._gather_s = gather_s
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._stopping = threading.Event()
        self._round_ended = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._next_maintenance = 0.0
        self._resumes_at = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread that rows are waiting."""
        if not self._work.is_set():
            self._work.set()

    def drain(self, stores: Sequence[Drainable], seconds: float) -> bool:
        """Wait until the stores are empty, the backend is down, or no response comes for `seconds`; return if empty."""
        self._hurry.set()
        self._work.set()
        accepted, deadline = self.state.accepted, time.monotonic() + seconds
        try:
            with self._round_ended:
                while not (empty := all(store.is_empty for store in stores)) and not self.state.is_down:
                    if not self._round_ended.wait(max(0.0, deadline - time.monotonic())):
                        break
                    if self.state.accepted > accepted:
                        accepted, deadline = self.state.accepted, time.monotonic() + seconds
            return empty
        finally:
            self._hurry.clear()

    def stop(self, seconds: float) -> None:
        """Stop the thread, and wait for it up to `seconds`; it may be waiting for a response."""
        self._stopping.set()
        self._hurry.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        with suppress_instrumentation():
            while not self._stopping.is_set():
                try:
                    pause = self._send_round()
                except Exception as error:  # noqa: BLE001 - whatever failed, the rows are still stored
                    pause = self._record(error)
                with self._round_ended:
                    self._round_ended.notify_all()
                if pause is None:
                    self._work.wait(self._idle_s)
                    # Spans come in bursts: wait for the rest of one.
                    self._hurry.wait(self._gather_s)
                elif pause:
                    self._stopping.wait(pause)

    def _send_round(self) -> float | None:
        """Send one batch of each store; return for how long to pause, None if no rows are waiting."""
        if time.monotonic() >= self._next_maintenance:
            self._maintain()
            self._next_maintenance = time.monotonic() + self._idle_s
        # Maintenance also runs during a long pause: old rows are dropped, and the figures stay current.
        if (left := self._resumes_at - time.monotonic()) > 0:
            return min(left, self._idle_s)
        self._work.clear()
        pauses: list[float | None] = []
        for batches in self._batches():
            try:
                pause = batches.send_next()
            except Exception as error:  # noqa: BLE001 - whatever is wrong with this store, the others continue
                pause = None
                if _is_damaged(error):
                    batches.replace_unreadable()
                    pause = 0.0
                else:
                    batches.pause(self._record(error))
            if pause:
                self._resumes_at = time.monotonic() + pause
                return min(pause, self._idle_s)
            pauses.append(pause)
        return None if all(pause is None for pause in pauses) else 0.0

    def _record(self, error: Exception) -> float:
        # After the end, failures are left to the next process.
        if not self._stopping.is_set():
            internal_errors.record("deliver", error)
        return self._idle_s


def _is_damaged(error: Exception) -> bool:
    # A connection that was closed in the meantime raises ProgrammingError.
    return (
        isinstance(error, sqlite3.DatabaseError)
        and not isinstance(error, sqlite3.ProgrammingError)
        and not is_transient(error)
    )
