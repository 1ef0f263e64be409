"""What every span of a turn carries, and which hosts and callers may share its trace."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar
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

P = ParamSpec("P")
R = TypeVar("R")

_SCOPE = otel.create_key("telemetry-scope")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_trusted: set[str] = set()
_calling: ContextVar[tuple[int, str] | None] = ContextVar("telemetry-calling", default=None)


@contextmanager
def scope(
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    trace_name: str | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Stamp every span that starts inside with the session, the user and what a trace is found by.

    The span that is current at entry gets the same stamps. Nothing of it goes into outgoing headers.
    """
    token = otel.attach(scoped(session_id, user_id, trace_name, tags, metadata))
    try:
        yield
    finally:
        otel.detach(token)


def scoped(
    session_id: str | None = None,
    user_id: str | None = None,
    trace_name: str | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Context:
    """Return the current context with the stamps added, and stamp the current span."""
    stamps: dict[str, Any] = {
        "session.id": session_id,
        "user.id": user_id,
        "langfuse.trace.name": trace_name,
        "langfuse.trace.tags": tuple(tags) or None,
        **{f"langfuse.trace.metadata.{key}": value for key, value in (metadata or {}).items()},
    }
    inherited = otel.get_value(_SCOPE)
    merged = {**(inherited if isinstance(inherited, dict) else {}), **{k: v for k, v in stamps.items() if v}}
    trace.get_current_span().set_attributes(merged)
    return otel.set_value(_SCOPE, merged)


class Stamper(SpanProcessor):
    """Gives each span, whoever starts it, the stamps of the scope it starts in."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp the span."""
        stamps = otel.get_value(_SCOPE, parent_context)
        if isinstance(stamps, dict):
            span.set_attributes(stamps)

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
