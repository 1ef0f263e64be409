"""What every span of a turn carries, and which hosts and callers may share its trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

P = ParamSpec("P")
R = TypeVar("R")

_SCOPE = otel.create_key("telemetry-scope")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_trusted: set[str] = set()
_calling: ContextVar[tuple[int, str] | None] = ContextVar("telemetry-calling", default=None)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What every span of a turn carries, so that a backend finds the turn by it.

    Every process that has a part in the turn says the same of it; only the service knows the run.
    """

    session_id: str | None = None
    user_id: str | None = None
    agent: str | None = None
    run_id: str | None = None

    @property
    def stamps(self) -> dict[str, AttributeValue]:
        """The attributes, under the names that Langfuse filters by."""
        named = {
            "session.id": self.session_id,
            "user.id": self.user_id,
            "langfuse.trace.name": self.agent,
            "langfuse.trace.tags": (self.agent,) if self.agent else None,
            "langfuse.trace.metadata.agent": self.agent,
            "langfuse.trace.metadata.thread": self.session_id,
            "langfuse.trace.metadata.run": self.run_id,
        }
        return {name: value for name, value in named.items() if value}

    def enter(self) -> Context:
        """Return the current context with these stamps added, and stamp the current span."""
        stamps = {**_stamps(None), **self.stamps}
        trace.get_current_span().set_attributes(stamps)
        return otel.set_value(_SCOPE, stamps)


@contextmanager
def scope(
    *, session_id: str | None = None, user_id: str | None = None, agent: str | None = None, run_id: str | None = None
) -> Iterator[None]:
    """Stamp every span that starts inside, whoever starts it, with what a turn is found by.

    The span that is current at entry gets the same stamps. Nothing of it goes into outgoing headers.
    """
    token = otel.attach(Scope(session_id=session_id, user_id=user_id, agent=agent, run_id=run_id).enter())
    try:
        yield
    finally:
        otel.detach(token)


def _stamps(context: Context | None) -> dict[str, AttributeValue]:
    found = otel.get_value(_SCOPE, context)
    return found if isinstance(found, dict) else {}


class Stamper(SpanProcessor):
    """Gives each span, whoever starts it, the stamps of the scope it starts in."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp the span."""
        span.set_attributes(_stamps(parent_context))

    def on_end(self, span: ReadableSpan) -> None:
        """Leave the span as it is."""


def carry(fn: Callable[P, R]) -> Callable[P, R]:
    """Return `fn` bound to a copy of the current context, for thread pools and threads.

    Without it what they do starts a trace of its own. Each call runs in a fresh copy.
    """
    context = copy_context()

    @wraps(fn)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(fn, *args, **kwargs)

    return carried


def trust(url: str) -> None:
    """Let requests to this address (or `host`, or `host:port`) carry the trace."""
    _trusted.add(_netloc(url) if "//" in url else url.lower())


def note_call(span: trace.Span, url: str) -> None:
    """Remember where the HTTP call of this span goes, for the propagator that is asked next."""
    _calling.set((span.get_span_context().span_id, _netloc(url)))


def _netloc(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)}"


def _may_carry(span: trace.Span) -> bool:
    span_id, host = _calling.get() or (0, "")
    return span_id == span.get_span_context().span_id and not _trusted.isdisjoint({host, host.rsplit(":", 1)[0]})


class TrustedPropagator(TextMapPropagator):
    """W3C Trace Context to trusted hosts and from trusted callers; baggage never.

    A request that goes elsewhere loses the trace headers that a redirect or a caller left on it. `honours` says of the
    incoming `Authorization` header whether its sender may continue a trace of ours.
    """

    def __init__(self) -> None:
        self.honours: Callable[[str | None], bool] = lambda _: True
        self._inner = TraceContextTextMapPropagator()

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the trace headers of a call to a trusted host; remove them from any other."""
        if _may_carry(trace.get_current_span(context)):
            self._inner.inject(carrier, context, setter)
        elif hasattr(carrier, "pop"):
            for name in self.fields:
                carrier.pop(name, None)  # pyright: ignore[reportAttributeAccessIssue] - asked for above

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """Return the context that a trusted caller's headers continue."""
        authorization = next(iter(getter.get(carrier, "authorization") or []), None)
        if not self.honours(authorization):
            return context if context is not None else otel.get_current()
        return self._inner.extract(carrier, context, getter)

    @property
    def fields(self) -> set[str]:
        """The headers it writes."""
        return self._inner.fields
