"""Runs that go on without the page, followed by it as long as it lives."""

import logging
import time
from collections.abc import Sequence
from typing import BinaryIO

from opentelemetry.trace import Span

import telemetry
from app.client import AgentClient, Failed, Refused, Unreachable
from app.schema import RunInfo, StreamEvent
from ui.exchange import Exchange
from ui.turns import Turn

logger = logging.getLogger(__name__)

OVER = ("waiting", "completed", "failed", "cancelled")
# The service may be starting again; after that a reload looks anew.
LOOK_AGAIN_S = 2
LOOKS = 150


class BackgroundRun(Turn):
    """A message that is handed over, or a run that was, before this process knew of it."""

    in_background = True

    def __init__(
        self,
        client: AgentClient,
        thread_id: str,
        message: str,
        model: str | None = None,
        files: Sequence[BinaryIO] = (),
        run: RunInfo | None = None,
    ) -> None:
        super().__init__(client, thread_id, message, model, files)
        self._submitted = run

    def exchange(self) -> Exchange:
        """Return what there is to see so far; its run is known before its first event."""
        seen, run = super().exchange(), self._submitted
        if run and seen.run_id is None:
            seen.run_id, seen.trace_id, seen.trace_url = run.run_id, run.trace_id, run.trace_url
        return seen

    def _work(self) -> None:
        if self._submitted is None:
            super()._work()
        if self._submitted:
            self._follow(self._submitted.run_id)

    def _ask(self) -> None:
        self._submitted = self._client.submit(self.message, thread_id=self.thread_id, model=self._model)
        if self.stopping:
            self._ask_to_stop(self._submitted.run_id)

    def _tell(self, span: Span) -> None:
        # The span ends here, for the run outlives the page: its answer is the run's to tell.
        if self._submitted:
            span.set_attribute("turn.status", "queued")

    def _follow(self, run_id: str) -> None:
        with telemetry.untraced():
            for _ in range(LOOKS):
                if self._read(run_id):
                    return
                time.sleep(LOOK_AGAIN_S)
        raise Failed("The service has been silent for long: reload the page to look for the run again.")

    def _read(self, run_id: str) -> bool:
        """Read the run's events, those of the past first; returns whether that went to their end."""
        told: list[StreamEvent] = []
        try:
            for event in self._client.follow(run_id):
                told.append(event)
                if len(told) > len(self._events):
                    self._events = told
        except Refused:
            raise
        except (Unreachable, Failed) as error:
            logger.info("run %s is out of sight: %s", run_id, error)
            return False
        return True


def unfinished(runs: Sequence[RunInfo], thread_id: str) -> RunInfo | None:
    """Return the run that the thread is busy with."""
    return next((run for run in runs if run.thread_id == thread_id and run.status not in OVER), None)
