"""Background runs, which continue without the page; the page follows them as long as it is open."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from opentelemetry.trace import Span

import telemetry
from app.client import AgentClient, Failed, Refused, Unreachable
from app.schema import Answer, RunInfo, StreamEvent
from telemetry.turn_root import queued_line
from ui import texts
from ui.exchange import Exchange
from ui.turn_registry import ChatTurn

logger = logging.getLogger(__name__)

FINISHED = ("waiting", "completed", "failed", "cancelled")
# The service may be restarting; after that a reload looks again.
RETRY_DELAY_S = 2
MAX_RETRIES = 150


class BackgroundTurn(ChatTurn):
    """A message that is submitted as a background run, or a background run that this process did not start."""

    in_background = True

    def __init__(
        self,
        client: AgentClient,
        thread_id: str,
        message: str,
        model: str | None = None,
        files: Sequence[BinaryIO] = (),
        answers: Mapping[str, Answer] | None = None,
        replaces: str | None = None,
        run: RunInfo | None = None,
    ) -> None:
        super().__init__(client, thread_id, message, model, files, answers, replaces)
        self._submitted = run

    def exchange(self) -> Exchange:
        """Return the exchange so far; the run is known before its first event."""
        seen, run = super().exchange(), self._submitted
        if run and seen.run_id is None:
            seen.run_id, seen.trace_id, seen.trace_url = run.run_id, run.trace_id, run.trace_url
        return seen

    def _run_turn(self) -> None:
        if self._submitted is None:
            super()._run_turn()
        if self._submitted:
            self._follow(self._submitted.run_id)

    def _send_message(self) -> None:
        self._submitted = self._client.submit(
            self.message,
            thread_id=self.thread_id,
            model=self._model,
            answers=self._answers,
            replaces=self._replaces,
        )
        if self.stopping:
            self._cancel_run(self._submitted.run_id)

    def _record_output(self, span: Span) -> None:
        # The span ends here, since the run outlives the page: the answer belongs to the run's own span.
        if self._submitted:
            span.set_attributes({"turn.status": "queued", "output.value": queued_line(self._submitted.run_id)})

    def _follow(self, run_id: str) -> None:
        with telemetry.suppress_instrumentation():
            for _ in range(MAX_RETRIES):
                if self._read(run_id):
                    return
                time.sleep(RETRY_DELAY_S)
        raise Failed(texts.RUN_SILENT)

    def _read(self, run_id: str) -> bool:
        """Read the run's events from the first one; return whether the run has ended."""
        events: list[StreamEvent] = []
        try:
            for event in self._client.follow(run_id):
                events.append(event)
                if len(events) > len(self._events):
                    self._events = events
        except Refused:
            raise
        except (Unreachable, Failed) as error:
            logger.info("run %s cannot be followed: %s", run_id, error)
            return False
        return True


def unfinished(runs: Sequence[RunInfo], thread_id: str) -> RunInfo | None:
    """Return the thread's unfinished run."""
    return next((run for run in runs if run.thread_id == thread_id and run.status not in FINISHED), None)
