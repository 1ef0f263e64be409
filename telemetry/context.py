"""What every span of a turn carries, in this process and into its threads."""

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import wraps
from types import MappingProxyType
from typing import ParamSpec, TypeVar

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from telemetry import langfuse

P = ParamSpec("P")
R = TypeVar("R")

_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_SCOPE = otel.create_key("telemetry-scope")
_STAMPS = ("session.id", "user.id", "langfuse.trace.")
# The trace that a caller who is not trusted wanted continued: a new one is only linked to it.
REFUSED = otel.create_key("telemetry-refused")


@dataclass(frozen=True)
class TraceRef:
    """A span and its trace: ids in lower-case hex."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def url(self) -> str | None:
        """The page that shows the trace, None until the backend has told where, or if it is not recorded."""
        return langfuse.trace_url(self.trace_id) if self.sampled else None


@dataclass(frozen=True)
class Resumed:
    """The run that waited for a person, where it is recorded, and how long the person took."""

    run_id: str
    trace: TraceRef | None
    waited_s: float


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What every span of a turn carries, so that a backend finds the turn by it.

    Every process that has a part in the turn says the same of it; only the service knows the run.
    """

    session_id: str | None = None
    user_id: str | None = None
    agent: str | None = None
    run_id: str | None = None
    resumes: Resumed | None = None
    name: str | None = None

    @property
    def stamps(self) -> dict[str, AttributeValue]:
        """The attributes, under the names that Langfuse filters by."""
        before = self.resumes
        named = {
            "session.id": self.session_id,
            "user.id": self.user_id,
            "langfuse.trace.name": self.name or self.agent,
            "langfuse.trace.tags": (self.agent,) if self.agent else None,
            "langfuse.trace.metadata.agent": self.agent,
            "langfuse.trace.metadata.thread": self.session_id,
            "langfuse.trace.metadata.run": self.run_id,
            "langfuse.trace.metadata.resumes": before.run_id if before else None,
            "langfuse.trace.metadata.resumes_trace": before.trace.trace_id if before and before.trace else None,
        }
        return {name: value for name, value in named.items() if value}

    def enter(self) -> Context:
        """Return the current context with these stamps added, and stamp the current span."""
        merged = {**stamps(), **self.stamps}
        trace.get_current_span().set_attributes(merged)
        return otel.set_value(_SCOPE, merged)


@contextmanager
def scope(
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    agent: str | None = None,
    run_id: str | None = None,
    name: str | None = None,
) -> Iterator[None]:
    """Stamp every span that starts inside, whoever starts it, with what a turn is found by.

    The trace is called `name`, else as the agent. The span that is current at entry gets the same stamps. Nothing of it
    goes into outgoing headers.
    """
    inside = Scope(session_id=session_id, user_id=user_id, agent=agent, run_id=run_id, name=name).enter()
    token = otel.attach(inside)
    try:
        yield
    finally:
        otel.detach(token)


def stamps(context: Context | None = None) -> dict[str, AttributeValue]:
    """Return what every span that starts in this context carries; a later change is seen by later spans."""
    found = otel.get_value(_SCOPE, context)
    return found if isinstance(found, dict) else {}


@contextmanager
def continued(trace_id: str | None) -> Iterator[None]:
    """Have spans and calls inside belong to the trace with this id; nothing changes without one.

    Their parent is a span that nobody will send: where the trace's own context is at hand, its headers serve better.
    """
    if trace_id is None:
        yield
        return
    given = {"traceparent": traceparent(trace_id)}
    token = otel.attach(TraceContextTextMapPropagator().extract(given, otel.get_current()))
    try:
        yield
    finally:
        otel.detach(token)


def traceparent(trace_id: str) -> str:
    """Return the W3C header that says: this belongs to the trace with this id; refuses what is no id."""
    if not _TRACE_ID.fullmatch(trace_id) or not int(trace_id, 16):
        raise ValueError(f"{trace_id!r} is no trace id: it has 32 hexadecimal digits in lower case, not all of them 0.")
    return f"00-{trace_id}-{secrets.token_hex(8)}-01"


class Stamper(SpanProcessor):
    """Gives each span, whoever starts it, the stamps of its parent and of the scope it starts in."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp the span."""
        span.set_attributes({**_inherited(parent_context), **stamps(parent_context)})
        refused = otel.get_value(REFUSED, parent_context)
        if span.parent is None and isinstance(refused, SpanContext):
            span.add_link(refused)

    def on_end(self, span: ReadableSpan) -> None:
        """Leave the span as it is."""


def _inherited(context: Context | None) -> dict[str, AttributeValue]:
    # The scope of a graph that nobody runs in a turn is known to its first span only.
    parent = trace.get_current_span(context)
    said = parent.attributes if isinstance(parent, ReadableSpan) else None
    # The SDK's own mapping is slow to walk through.
    known = said.copy() if isinstance(said, MappingProxyType) else said or {}
    return {name: value for name, value in known.items() if name.startswith(_STAMPS)}


def carry(fn: Callable[P, R]) -> Callable[P, R]:
    """Return `fn` bound to a copy of the current context, for thread pools and threads.

    Without it what they do starts a trace of its own. Each call runs in a fresh copy.
    """
    context = copy_context()

    @wraps(fn)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(fn, *args, **kwargs)

    return carried
