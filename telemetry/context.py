"""The attributes that every span of a turn has, and the context that it starts in."""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import wraps
from string import ascii_letters, digits
from typing import Any, ParamSpec, TypeVar

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from telemetry.backends import langfuse

P = ParamSpec("P")
R = TypeVar("R")

_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_SCOPE = otel.create_key("telemetry-scope")
_TAGS = "langfuse.trace.tags"
# Attributes that every span of a turn has must be small.
_MAX_TAGS, _MAX_METADATA = 20, 32
_LONGEST_KEY, _LONGEST_VALUE = 64, 200
_WORD = f"{ascii_letters}{digits}_-"
# The span of an untrusted caller: its trace is not continued, the new one is only linked to it.
UNTRUSTED_PARENT = otel.create_key("telemetry-untrusted-parent")
# Whether the span around has the question and the answer of the turn that is asked for inside.
SHOWS_TURN = otel.create_key("telemetry-shows-turn")


@dataclass(frozen=True)
class TraceRef:
    """A span and its trace: ids in lower-case hex."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def url(self) -> str | None:
        """The page of the trace; None if it is not recorded, or until the backend has returned the address."""
        return langfuse.trace_url(self.trace_id) if self.sampled else None


@dataclass(frozen=True)
class Resumed:
    """The run whose question a turn answers: its id, its trace, and for how many seconds it has waited."""

    run_id: str
    trace: TraceRef | None
    waited_s: float


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What every span of a turn has in common, so that a backend can filter by it.

    Every process that takes part in a turn sets the same values; only the service knows the run.
    """

    session_id: str | None = None
    user_id: str | None = None
    agent: str | None = None
    run_id: str | None = None
    resumes: Resumed | None = None
    name: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[str, AttributeValue]:
        """The scope as attributes, under the names that Langfuse filters by."""
        before = self.resumes
        named = {
            "session.id": self.session_id,
            "user.id": self.user_id,
            "langfuse.trace.name": self.name or self.agent,
            "langfuse.trace.tags": _bounded_tags((self.agent, *self.tags)),
            "langfuse.trace.metadata.agent": self.agent,
            "langfuse.trace.metadata.thread": self.session_id,
            "langfuse.trace.metadata.run": self.run_id,
            "langfuse.trace.metadata.resumes": before.run_id if before else None,
            "langfuse.trace.metadata.resumes_trace": before.trace.trace_id if before and before.trace else None,
        }
        own = {name: value for name, value in named.items() if value not in (None, "", ())}
        return {**_filterable(self.metadata), **own}

    def enter(self, *, on_current_span: bool = True) -> Context:
        """Return the current context with this scope added, and put its attributes on the current span."""
        around, own = scope_attributes(), self.attributes
        merged = {**around, **own}
        if tags := _bounded_tags((*_tags_of(around), *_tags_of(own))):
            merged[_TAGS] = tags
        # A request's span may have ended before the work that it started.
        if on_current_span and (current := trace.get_current_span()).is_recording():
            current.set_attributes(merged)
        return otel.set_value(_SCOPE, merged)


@contextmanager
def scope(
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    agent: str | None = None,
    run_id: str | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Set session, user and more on every span that starts inside, whatever starts it.

    Args:
        session_id: the conversation, `session.id`.
        user_id: whose turn it is, `user.id`.
        agent: the agent's name, a tag and filterable metadata of the trace.
        run_id: the run's id, filterable metadata of the trace.
        name: the name of the trace; default: the agent's.
        tags: tags to filter traces by: at most 20, of 200 characters each.
        metadata: fields to filter traces by: at most 32, with text, numbers and booleans.

    The span that is current at entry gets the same attributes. None of them are sent in outgoing headers.

    Example:
        >>> import telemetry
        >>> with telemetry.scope(session_id="thread-7", user_id="ada"), telemetry.span("look it up"):
        ...     pass
    """
    inside = Scope(
        session_id=session_id,
        user_id=user_id,
        agent=agent,
        run_id=run_id,
        name=name,
        tags=tags,
        metadata=metadata or {},
    ).enter()
    token = otel.attach(inside)
    try:
        yield
    finally:
        otel.detach(token)


@contextmanager
def shows_turn() -> Iterator[None]:
    """Tell the services that are called inside that the span around shows the turn's question and answer."""
    token = otel.attach(otel.set_value(SHOWS_TURN, True))
    try:
        yield
    finally:
        otel.detach(token)


def _tags_of(attributes: Mapping[str, AttributeValue]) -> Sequence[Any]:
    found = attributes.get(_TAGS)
    return found if isinstance(found, (list, tuple)) else ()


def _bounded_tags(tags: Sequence[str | None]) -> tuple[str, ...]:
    named = [_bounded(tag) for tag in tags if isinstance(tag, str) and tag]
    return tuple(dict.fromkeys(named))[:_MAX_TAGS]


def _filterable(metadata: Mapping[str, Any]) -> dict[str, AttributeValue]:
    plain = {key: value for key, value in metadata.items() if type(value) in (str, int, float, bool)}
    bounded = list(plain.items())[:_MAX_METADATA]
    return {
        f"langfuse.trace.metadata.{key[:_LONGEST_KEY]}": _bounded(value) if isinstance(value, str) else value
        for key, value in bounded
    }


def _bounded(text: str) -> str:
    """Return text that is not too long to filter by, and no half of a word: half a secret is not recognised."""
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1].rstrip(_WORD) + "…"


def scope_attributes(context: Context | None = None) -> dict[str, AttributeValue]:
    """Return the attributes of every span that starts in this context; changes affect spans that start later."""
    found = otel.get_value(_SCOPE, context)
    return found if isinstance(found, dict) else {}


@contextmanager
def attach_trace(trace_id: str | None) -> Iterator[None]:
    """Add the spans and calls inside to the trace with this id; without an id nothing changes.

    Args:
        trace_id: 32 lower-case hexadecimal digits, or None.

    Raises `ValueError` for anything else. The parent of the spans is one that is never sent: if you have the trace's
    headers, use those instead.

    Example:
        >>> import telemetry
        >>> with telemetry.attach_trace("0af7651916cd43dd8448eb211c80319c"):
        ...     telemetry.current_trace().trace_id
        '0af7651916cd43dd8448eb211c80319c'
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
    """Return the value of the `traceparent` header that adds a request to the trace with this id.

    Args:
        trace_id: 32 lower-case hexadecimal digits, not all of them 0.

    Raises `ValueError` for anything else.

    Example:
        >>> import telemetry
        >>> telemetry.traceparent("0af7651916cd43dd8448eb211c80319c")
        '00-0af7651916cd43dd8448eb211c80319c-...-01'
    """
    if not _TRACE_ID.fullmatch(trace_id) or not int(trace_id, 16):
        raise ValueError(f"{trace_id!r} is not a trace id: write 32 lower-case hexadecimal digits, not all of them 0.")
    return f"00-{trace_id}-{secrets.token_hex(8)}-01"


def with_current_context(fn: Callable[P, R]) -> Callable[P, R]:
    """Return `fn` bound to a copy of the current context, for thread pools and threads.

    Without it, spans in the thread start a separate trace. Each call runs in a fresh copy of the context; it returns
    what `fn` returns and raises what `fn` raises.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> import telemetry
        >>> with ThreadPoolExecutor() as pool, telemetry.span("sum"):
        ...     pool.submit(telemetry.with_current_context(sum), [1, 2]).result()
        3
    """
    context = copy_context()

    @wraps(fn)
    def in_context(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(fn, *args, **kwargs)

    return in_context
