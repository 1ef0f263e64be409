"""Send the spans of one store in order and in batches; halve a rejected batch until one span is left."""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from telemetry.delivery.backoff import BackendState, Pausable
from telemetry.delivery.http import Response
from telemetry.delivery.store import SPAN, Row, SpoolStore
from telemetry.delivery.stub import is_stub, make_stub

logger = logging.getLogger(__name__)

MAX_ROWS = 4096
MIN_REQUEST_BYTES = 1024
# With fewer bytes, wait for further spans instead of sending a small request at once.
SEND_AT_ONCE_BYTES = 256 * 1024
# After this many failures, whatever the response, a batch is halved: it may be too large for a timeout.
FAILURES_BEFORE_HALVING = 3
# A span counts as the cause of a 500 after this many, with other spans accepted in between.
MAX_REJECTIONS = 5


class SpanBatches(Pausable):
    """Sends the spans of one store; calls `on_unreadable` with a store that cannot be read."""

    def __init__(
        self,
        store: SpoolStore,
        state: BackendState,
        post: Callable[[bytes], Response],
        on_unreadable: Callable[[SpoolStore], None],
    ) -> None:
        super().__init__()
        self.store = store
        self._state = state
        self._post_body = post
        self._on_unreadable = on_unreadable
        self._max_rows = MAX_ROWS
        self._failures = 0
        self._suspect = 0
        self._rejections = 0
        self._accepted = 0

    def send_next(self) -> float | None:
        """Send one batch; return for how many seconds to send nothing, None if no rows have to be sent now."""
        if self.is_paused:
            return None
        rows = self.store.take(SPAN, self._state.max_request_bytes, self._max_rows)
        if not rows:
            return None
        response = self._post(rows)
        if not response.accepted:
            return self._handle_failure(rows, response)
        more = len(rows) == self._max_rows
        self._mark_accepted(rows)
        return 0.0 if more or self.store.size_of(SPAN) > SEND_AT_ONCE_BYTES else None

    def replace_unreadable(self) -> None:
        """Set the store aside."""
        self._on_unreadable(self.store)

    def _post(self, rows: Sequence[Row]) -> Response:
        response = self._post_body(b"".join(row.body for row in rows))
        self._state.record_response(response, len(rows))
        return response

    def _mark_accepted(self, rows: Sequence[Row]) -> None:
        self.store.mark_accepted(rows)
        self._max_rows = min(MAX_ROWS, self._max_rows * 2)
        self._failures = 0

    def _handle_failure(self, rows: Sequence[Row], response: Response) -> float:
        self._failures += 1
        if len(rows) == 1 and response.may_be_payload_error:
            self._probe_rejected(rows[0], response)
            return 0.0
        if len(rows) > 1 and (response.is_payload_error or self._failures >= FAILURES_BEFORE_HALVING):
            self._failures = 0
            self._max_rows = len(rows) // 2
            if response.status == 413:
                size = sum(len(row.body) for row in rows)
                self._state.max_request_bytes = max(size // 2, MIN_REQUEST_BYTES)
        return 0.0 if response.is_payload_error else self._state.back_off(response)

    def _probe_rejected(self, row: Row, response: Response) -> None:
        """Handle a span that was rejected alone: it is the cause only if the backend accepts another one meanwhile."""
        if self._suspect != row.seq:
            self._suspect, self._rejections, self._accepted = row.seq, 0, self._state.accepted
        if self._another_is_accepted(row):
            response = self._post([row])
            self._rejections, self._accepted = self._rejections + 1, self._state.accepted
            if response.accepted:
                return self._mark_accepted([row])
            if response.is_payload_error or (response.may_be_payload_error and self._rejections >= MAX_REJECTIONS):
                return self._replace_with_stub(row, response)
        self.pause(self._state.back_off(response))
        return None

    def _another_is_accepted(self, suspect: Row) -> bool:
        others = self._others(suspect)
        while self._state.accepted == self._accepted and (other := next(others, None)):
            response = self._post([other])
            if response.accepted:
                self.store.remove(other)
            elif not response.may_be_payload_error:
                break
        return self._state.accepted > self._accepted

    def _others(self, suspect: Row) -> Iterator[Row]:
        """Yield rows at increasing distances, since adjacent ones may have the same fault."""
        skip = 0
        while rows := self.store.take(SPAN, 0, 1, after=suspect.seq, skip=skip):
            yield rows[0]
            skip = 2 * skip + 1

    def _replace_with_stub(self, row: Row, response: Response) -> None:
        logger.error("the backend rejects a span permanently: it becomes a dead letter: %s", response)
        stub = make_stub(row.body, str(response))
        try:
            self.store.replace_with_stub(row, str(response), stub)
        except sqlite3.OperationalError:
            # A full disk has no space for a dead letter: the stub reports it, and the spans behind it can be sent.
            response = self._post([row._replace(body=stub)]) if stub else response
            if not (response.accepted or response.is_payload_error):
                raise
            self._mark_accepted([row])
        self._state.dead_letters += not is_stub(row.body)
