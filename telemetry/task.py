"""Long-running work that reports its progress."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4
from weakref import WeakSet, finalize

from opentelemetry import context as otel
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry import pipeline
from telemetry.internal_errors import handle_internal_errors
from telemetry.plain_data import safe_text
from telemetry.span import fail

Data = dict[str, Any]
State = Literal["started", "progress", "finished"]
Result = Literal["success", "error", "cancelled"]


class Task:
    """A span that lasts as long as the task, with a child span of zero duration for each reported change.

    Args:
        name: the task's name.
        tell: called with each reported change, as a dict.
        interval_s: seconds between two reports; changes in between are counted, and reported with the next one.
        data: the initial data of the task.

    Used with `with`, the task starts and finishes itself, with the result of the body. It stays in the trace in which
    it was started, even if that has ended.

    Example:
        >>> import telemetry
        >>> with telemetry.Task("import", total=100) as task:
        ...     task.write_data(done=50)
        >>> task.result
        'success'
    """

    def __init__(
        self, name: str, *, tell: Callable[[Data], None] | None = None, interval_s: float = 1.0, **data: Any
    ) -> None:
        self.name = name
        self.task_id = str(uuid4())
        self.result: Result | None = None
        self._tell = tell
        self._interval_s = interval_s
        self._data: Data = dict(data)
        self._told: Data = {}
        self._next = 0.0
        self._writes = self._events = 0
        self._span: Span | None = None
        self._inside: otel.Context | None = None

    def start(self, **data: Any) -> None:
        """Start the task and report it; a second call changes nothing."""
        if self._span:
            return
        attributes = {"openinference.span.kind": "CHAIN", "task.id": self.task_id}
        self._span = pipeline.tracer().start_span(f"task {self.name}", attributes=attributes)
        self._inside = set_span_in_context(self._span)
        self._data |= data
        self._span.set_attribute("input.value", safe_text(self._data))
        pipeline.shared(_OpenTasks).add(self)
        # A task that is garbage-collected ends as well.
        finalize(self, _abandon, self._span)
        self._say("started")

    def write_data(self, **data: Any) -> None:
        """Report changed data, unless nothing has changed or the last report is younger than the interval."""
        if self._span is None or self.result:
            return
        self._writes += 1
        self._data |= data
        if self._data != self._told and time.monotonic() >= self._next:
            self._say("progress")

    def finish(self, result: Result = "success", **data: Any) -> None:
        """End the task with its result and all its data; a second call changes nothing."""
        if self._span is None or self.result:
            return
        self.result = result
        self._data |= data
        self._say("finished")
        pipeline.shared(_OpenTasks).discard(self)
        self._span.set_attributes({"output.value": safe_text(self._data), **self._counters()})
        if result == "error" and not _failed(self._span):
            self._span.set_status(Status(StatusCode.ERROR, str(self._data.get("error", "the task failed"))))
        self._span.end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error and self._span and not self.result:
            fail(self._span, error)
        self.finish(_result(error))

    def _counters(self) -> dict[str, AttributeValue]:
        return {"task.result": self.result or "", "task.writes": self._writes, "task.events": self._events}

    def _say(self, state: State) -> None:
        self._next = time.monotonic() + self._interval_s
        self._told = dict(self._data)
        self._events += 1
        with handle_internal_errors("report a task"):
            self._event(state)
        if self._tell:
            self._tell(self._as_event(state))

    def _event(self, state: State) -> None:
        attributes = {"openinference.span.kind": "CHAIN", "output.value": safe_text(self._told)}
        pipeline.tracer().start_span(state, self._inside, attributes=attributes).end()

    def _as_event(self, state: State) -> Data:
        data = dict(self._told)
        return {"type": "task", "task_id": self.task_id, "name": self.name, "state": state, "data": data} | (
            {"result": self.result} if self.result else {}
        )


class _OpenTasks(WeakSet[Task]):
    """The tasks of this process that have not ended."""


def end_tasks() -> None:
    """End the tasks that are still open in this process, as cancelled.

    Example:
        >>> import telemetry
        >>> telemetry.end_tasks()
    """
    for task in list(pipeline.shared(_OpenTasks)):
        task.finish("cancelled")


def _result(error: BaseException | None) -> Result:
    if error is None:
        return "success"
    return "error" if isinstance(error, Exception) else "cancelled"


def _failed(span: Span) -> bool:
    status = getattr(span, "status", None)
    return status is not None and status.status_code is StatusCode.ERROR


def _abandon(span: Span) -> None:
    if span.is_recording():
        span.set_attributes({"abandoned": True, "langfuse.observation.level": "WARNING"})
        span.end()
