"""Turns run in threads of their own: they belong to the process, not to the page that watches."""

import atexit
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import BinaryIO

import streamlit as st
from opentelemetry.trace import Span

import telemetry
from app.client import AgentClient, AgentError, Failed, Refused
from app.schema import FileInfo, RunEvent, StreamEvent, TokenEvent
from telemetry import keep
from telemetry.turn import with_questions
from ui.exchange import Exchange, from_events
from ui.tracing import chat_turn

logger = logging.getLogger(__name__)

# Of the turns that are over: so many, and so much of what was said in them.
KEPT = 200
KEPT_LETTERS = 32_000_000
FAREWELL_SECONDS = 2
# The service may be starting again.
KEEP_TRIES_S = (1, 2, 4, 8, 16, 0)


# Whether the service has accepted it, and whether it has begun with it.
Stage = tuple[bool, bool]


class Turn:
    """One user message, and the files that come with it, on the way through the service, whoever watches."""

    in_background = False

    def __init__(
        self,
        client: AgentClient,
        thread_id: str,
        message: str,
        model: str | None = None,
        files: Sequence[BinaryIO] = (),
    ) -> None:
        self.thread_id = thread_id
        self.user_id = client.user_id
        self.message = message
        self.done = False
        self.stopping = False
        self._client = client
        self._model = model
        self._files = files
        self._given: list[FileInfo] = []
        self._refused = False
        self._cancel = client.cancel
        self._events: list[StreamEvent] = []
        self._error: AgentError | None = None
        self._trace: telemetry.TraceRef | None = None
        self._thread = threading.Thread(target=self._run, name=f"turn {thread_id}", daemon=True)

    @property
    def stage(self) -> Stage:
        """How far it is with the service: what lists show changes with that."""
        return self.exchange().run_id is not None, bool(self._events)

    @cached_property
    def letters(self) -> int:
        """How long everything is that was said in a turn that is over."""
        return len(self.message) + sum(len(event.model_dump_json()) for event in self._events)

    def start(self) -> None:
        """Let the turn begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the service to stop, at once or as soon as it has named the run."""
        self.stopping = True
        if run_id := self.exchange().run_id:
            self._ask_to_stop(run_id)

    def wait(self, seconds: float) -> None:
        """Wait until the turn is over, or the time is."""
        self._thread.join(seconds)

    def exchange(self) -> Exchange:
        """Return what there is to see so far."""
        seen, own = from_events(self.message, self._events), self._trace
        seen.given = list(self._given)
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
            self._work()
        except AgentError as error:
            self._error = error
        except Exception:
            logger.exception("a turn broke")
            self._error = Failed("Something broke in this page; its log says what.")
        finally:
            self.done = True
            self._follow_verdict()

    def _work(self) -> None:
        with self._span() as span:
            self._trace = telemetry.current_trace()
            self._cancel = telemetry.carry(self._client.cancel)
            try:
                self._upload()
                if self.message:
                    self._ask()
            finally:
                self._tell(span)

    def _tell(self, span: Span) -> None:
        """Say in the turn's span what came of it."""
        seen = self.exchange()
        span.set_attribute("output.value", with_questions(seen.answer, seen.asked if seen.status == "waiting" else ()))

    def _upload(self) -> None:
        """Send the files; a message whose file is refused is not sent."""
        refused: list[Refused] = []
        for file in self._files:
            try:
                self._given.append(self._client.upload(self.thread_id, file))
            except Refused as error:
                refused.append(Refused(f"{file.name}: {error}", error.status, error.trace_id))
        self._files = ()
        if refused:
            self._refused = True
            raise Refused("\n\n".join(map(str, refused)), refused[0].status, refused[0].trace_id)

    def _span(self) -> AbstractContextManager[Span]:
        return chat_turn(self.message, thread_id=self.thread_id, user_id=self.user_id, agent=self._client.agent)

    def _ask(self) -> None:
        for event in self._client.stream(self.message, thread_id=self.thread_id, model=self._model):
            self._take(event)
            if isinstance(event, RunEvent) and self.stopping:
                self._ask_to_stop(event.run_id)
        if error := self.exchange().error:
            raise Failed(error)

    def _take(self, event: StreamEvent) -> None:
        # Words are kept as text, not each as an event: a turn stays in memory long after its end.
        last = self._events[-1] if self._events else None
        if isinstance(event, TokenEvent) and isinstance(last, TokenEvent) and event.agent == last.agent:
            self._events[-1] = last.model_copy(update={"content": last.content + event.content})
        else:
            self._events.append(event)

    def _follow_verdict(self) -> None:
        """Keep or drop this page's part of the trace as the service has; where only this page saw what broke, both."""
        if not keep.holds() or not self._trace:
            return
        seen = self.exchange()
        kept_there = seen.status is not None and seen.kept
        if keep.decide(self._trace.trace_id, kept_there or seen.status is None) and not kept_there:
            self._ask_to_keep(self._trace.trace_id)

    def _ask_to_keep(self, trace_id: str) -> None:
        for seconds in KEEP_TRIES_S:
            try:
                with telemetry.untraced():
                    return self._client.keep(trace_id)
            except AgentError as error:
                logger.warning("trace %s may lack its other half: %s", trace_id, error)
                time.sleep(seconds)
        return None

    def _ask_to_stop(self, run_id: str) -> None:
        try:
            self._cancel(run_id)
        except AgentError as error:
            logger.warning("run %s could not be stopped: %s", run_id, error)


class Turns:
    """The latest turn of each user's threads."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str | None, str], Turn] = {}
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def latest(self, user_id: str | None, thread_id: str) -> Turn | None:
        """Return the turn that this thread had last in this process."""
        return self._latest.get((user_id, thread_id))

    def begin(self, turn: Turn) -> bool:
        """Let the turn begin and return True; False while the thread's previous one still runs."""
        key = (turn.user_id, turn.thread_id)
        with self._lock:
            if (previous := self._latest.get(key)) and not previous.done:
                return False
            self._latest.pop(key, None)
            self._latest[key] = turn
            self._forget()
        turn.start()
        return True

    def stop(self) -> None:
        """Ask every turn to stop that nobody would read on, and give it a moment to end its span."""
        running = [turn for turn in self._latest.values() if not turn.done and not turn.in_background]
        for turn in running:
            turn.stop()
        for turn in running:
            turn.wait(FAREWELL_SECONDS)

    def forget(self, user_id: str | None, thread_id: str) -> None:
        """Forget the turn of a thread that is no longer there."""
        with self._lock:
            self._latest.pop((user_id, thread_id), None)

    def _forget(self) -> None:
        over = [(key, turn) for key, turn in self._latest.items() if turn.done]
        letters = 0
        for number, (key, turn) in enumerate(reversed(over)):
            letters += turn.letters
            if number >= KEPT or letters > KEPT_LETTERS:
                del self._latest[key]


@st.cache_resource(show_spinner=False)
def turns() -> Turns:
    """Return the turns of this process, the same for every page that watches."""
    return Turns()
