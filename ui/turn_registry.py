"""Run each turn in a separate thread: turns belong to the process, not to the page that shows them."""

import atexit
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import BinaryIO

import streamlit as st
from opentelemetry.trace import Span

import telemetry
from app.client import AgentClient, AgentError, Failed, Refused
from app.schema import Answer, FileInfo, InnerTokenEvent, ReasoningEvent, RunEvent, StreamEvent, TokenEvent
from telemetry import tail_sampling
from telemetry.span import mark_cancelled
from telemetry.turn import with_questions
from ui import texts
from ui.exchange import Exchange, from_events
from ui.tracing import chat_turn

logger = logging.getLogger(__name__)

# How many finished turns are kept in memory, and how many of their characters.
MAX_FINISHED = 200
MAX_FINISHED_CHARACTERS = 32_000_000
STOP_TIMEOUT_S = 2
# The service may be restarting.
KEEP_RETRY_DELAYS_S = (1, 2, 4, 8, 16, 0)

# Whether the service has accepted the turn, and whether it has sent the first event.
Stage = tuple[bool, bool]


class ChatTurn:
    """One user message with its files, sent to the service, and the answer so far."""

    in_background = False

    def __init__(
        self,
        client: AgentClient,
        thread_id: str,
        message: str,
        model: str | None = None,
        files: Sequence[BinaryIO] = (),
        answers: Mapping[str, Answer] | None = None,
        replaces: str | None = None,
    ) -> None:
        self.thread_id = thread_id
        self.user_id = client.user_id
        self.message = message
        self.done = False
        self.stopping = False
        self._client = client
        self._model = model
        self._files = files
        self._answers = answers or {}
        self._replaces = replaces
        self._uploaded: list[FileInfo] = []
        self._refused = False
        self._cancel = client.cancel
        self._events: list[StreamEvent] = []
        self._error: AgentError | None = None
        self._trace: telemetry.TraceRef | None = None
        self._thread = threading.Thread(target=self._run, name=f"turn-{thread_id}", daemon=True)

    @property
    def stage(self) -> Stage:
        """The stage of the turn in the service, with which the lists in the sidebar change."""
        return self.exchange().run_id is not None, bool(self._events)

    @cached_property
    def size(self) -> int:
        """The number of characters that a finished turn keeps in memory."""
        return len(self.message) + sum(len(event.model_dump_json()) for event in self._events)

    def start(self) -> None:
        """Start the turn's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the service to cancel the run, at once or as soon as its id is known."""
        self.stopping = True
        if run_id := self.exchange().run_id:
            self._cancel_run(run_id)

    def wait(self, seconds: float) -> None:
        """Wait for the end of the turn, at most for this time."""
        self._thread.join(seconds)

    def exchange(self) -> Exchange:
        """Return the exchange so far."""
        seen, own = from_events(self.message, self._events), self._trace
        seen.uploads, seen.replaces = list(self._uploaded), self._replaces
        if self._error:
            seen.error = str(self._error)
            seen.refused = self._refused
        if own:
            seen.trace_id = seen.trace_id or own.trace_id
        if own and seen.kept and seen.trace_id == own.trace_id:
            seen.trace_url = seen.trace_url or own.url
        return seen

    def _run(self) -> None:
        try:
            self._run_turn()
        except AgentError as error:
            self._error = error
        except Exception:
            logger.exception("a turn failed")
            self._error = Failed(texts.PAGE_FAILED)
        finally:
            self.done = True
            self._apply_sampling_decision()

    def _run_turn(self) -> None:
        with self._span() as span:
            self._trace = telemetry.current_trace()
            self._cancel = telemetry.with_current_context(self._client.cancel)
            try:
                self._upload()
                if self.message:
                    self._send_message()
            finally:
                self._record_output(span)

    def _record_output(self, span: Span) -> None:
        """Set the answer as the output of the turn's span, and say so if it was cancelled."""
        seen = self.exchange()
        if seen.status == "cancelled":
            mark_cancelled(span, "cancel")
        span.set_attribute(
            "output.value", with_questions(seen.answer, seen.questions if seen.status == "waiting" else ())
        )

    def _upload(self) -> None:
        """Upload the files; raise `Refused` where one is refused, so that the message is not sent."""
        refused: list[Refused] = []
        for file in self._files:
            try:
                self._uploaded.append(self._client.upload(self.thread_id, file))
            except Refused as error:
                refused.append(Refused(f"{file.name}: {error}", error.status, error.trace_id))
        self._files = ()
        if refused:
            self._refused = True
            raise Refused("\n\n".join(map(str, refused)), refused[0].status, refused[0].trace_id)

    def _span(self) -> AbstractContextManager[Span]:
        return chat_turn(self.message, thread_id=self.thread_id, user_id=self.user_id, agent=self._client.agent)

    def _send_message(self) -> None:
        for event in self._client.stream(
            self.message,
            thread_id=self.thread_id,
            model=self._model,
            answers=self._answers,
            replaces=self._replaces,
        ):
            self._append(event)
            if isinstance(event, RunEvent) and self.stopping:
                self._cancel_run(event.run_id)
        if error := self.exchange().error:
            raise Failed(error)

    def _append(self, event: StreamEvent) -> None:
        # Tokens are joined, since a turn stays in memory long after its end.
        last = self._events[-1] if self._events else None
        if isinstance(event, InnerTokenEvent):
            return
        if (
            isinstance(event, TokenEvent | ReasoningEvent)
            and isinstance(last, TokenEvent | ReasoningEvent)
            and event.model_copy(update={"content": last.content}) == last
        ):
            self._events[-1] = last.model_copy(update={"content": last.content + event.content})
        else:
            self._events.append(event)

    def _apply_sampling_decision(self) -> None:
        """Keep or drop this page's spans of the trace as the service did; keep both if only the page saw a failure."""
        if not tail_sampling.decides_at_end() or not self._trace:
            return
        seen = self.exchange()
        kept_by_service = seen.status is not None and seen.kept
        if (
            tail_sampling.keep_trace(self._trace.trace_id, kept_by_service or seen.status is None)
            and not kept_by_service
        ):
            self._keep_trace(self._trace.trace_id)

    def _keep_trace(self, trace_id: str) -> None:
        for seconds in KEEP_RETRY_DELAYS_S:
            try:
                with telemetry.suppress_instrumentation():
                    return self._client.keep(trace_id)
            except AgentError as error:
                logger.warning("the service's spans of trace %s may be missing: %s", trace_id, error)
                time.sleep(seconds)
        return None

    def _cancel_run(self, run_id: str) -> None:
        try:
            self._cancel(run_id)
        except AgentError as error:
            logger.warning("run %s could not be stopped: %s", run_id, error)


class TurnRegistry:
    """The latest turn of each user's threads."""

    def __init__(self, max_finished: int = MAX_FINISHED, max_characters: int = MAX_FINISHED_CHARACTERS) -> None:
        self._max_finished = max_finished
        self._max_characters = max_characters
        self._latest: dict[tuple[str | None, str], ChatTurn] = {}
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def latest(self, user_id: str | None, thread_id: str) -> ChatTurn | None:
        """Return the latest turn of this thread in this process."""
        return self._latest.get((user_id, thread_id))

    def start(self, turn: ChatTurn) -> bool:
        """Start the turn and return True, or return False while the thread's previous one still runs."""
        key = (turn.user_id, turn.thread_id)
        with self._lock:
            if (previous := self._latest.get(key)) and not previous.done:
                return False
            self._latest.pop(key, None)
            self._latest[key] = turn
            self._forget_oldest()
        turn.start()
        return True

    def stop(self) -> None:
        """Cancel every turn that would have no reader left, and wait shortly for the end of its span."""
        running = [turn for turn in self._latest.values() if not turn.done and not turn.in_background]
        for turn in running:
            turn.stop()
        for turn in running:
            turn.wait(STOP_TIMEOUT_S)

    def forget(self, user_id: str | None, thread_id: str) -> None:
        """Forget the turn of a deleted thread."""
        with self._lock:
            self._latest.pop((user_id, thread_id), None)

    def _forget_oldest(self) -> None:
        finished = [(key, turn) for key, turn in self._latest.items() if turn.done]
        characters = 0
        for number, (key, turn) in enumerate(reversed(finished)):
            characters += turn.size
            if number >= self._max_finished or characters > self._max_characters:
                del self._latest[key]


@st.cache_resource(show_spinner=False)
def turn_registry() -> TurnRegistry:
    """Return the turns of this process, the same for every page."""
    return TurnRegistry()
