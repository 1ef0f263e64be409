"""Work that takes its time, and can be watched meanwhile."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4
from weakref import WeakSet, finalize

from opentelemetry import context as otel
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry import provider
from telemetry.failures import contained
from telemetry.json_text import dump
from telemetry.span import fail

Data = dict[str, Any]
State = Literal["started", "progress", "finished"]
Result = Literal["success", "error", "cancelled"]

_open: "WeakSet[Task]" = WeakSet()


class Task:
    """A span that lasts as long as the task, with a short child span, at once, for each change that is told.

    Of what changes within `interval_s` the latest is told with the next change or the end; the rest is counted.
    `tell` is given the same events, for whoever waits. Where `with` is used it starts, and finishes honestly, by
    itself. It stays in the trace in which it was started, however long that has ended.
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
        """Begin the task and tell so; a second call changes nothing."""
        if self._span:
            return
        attributes = {"openinference.span.kind": "CHAIN", "task.id": self.task_id}
        self._span = provider.tracer().start_span(f"task {self.name}", attributes=attributes)
        self._inside = set_span_in_context(self._span)
        self._data |= data
        self._span.set_attribute("input.value", dump(self._data))
        _open.add(self)
        # A task that everybody has forgotten ends all the same.
        finalize(self, _abandon, self._span)
        self._say("started")

    def write_data(self, **data: Any) -> None:
        """Tell what has changed, unless nothing has, or something else was told just now."""
        if self._span is None or self.result:
            return
        self._writes += 1
        self._data |= data
        if self._data != self._told and time.monotonic() >= self._next:
            self._say("progress")

    def finish(self, result: Result = "success", **data: Any) -> None:
        """End the task with its result and all that it has told; a second call changes nothing."""
        if self._span is None or self.result:
            return
        self.result = result
        self._data |= data
        self._say("finished")
        _open.discard(self)
        self._span.set_attributes({"output.value": dump(self._data), **self._counters()})
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
        with contained("tell of a task"):
            self._event(state)
        if self._tell:
            self._tell(self._as_event(state))

    def _event(self, state: State) -> None:
        attributes = {"openinference.span.kind": "CHAIN", "output.value": dump(self._told)}
        provider.tracer().start_span(state, self._inside, attributes=attributes).end()

    def _as_event(self, state: State) -> Data:
        data = dict(self._told)
        return {"type": "task", "task_id": self.task_id, "name": self.name, "state": state, "data": data} | (
            {"result": self.result} if self.result else {}
        )


def end_tasks() -> None:
    """End the tasks that are still open in this process, as cancelled."""
    for task in list(_open):
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
