"""Send W3C Trace Context to trusted hosts, and accept it from trusted callers, only."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Self
from urllib.parse import urlsplit

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.propagators import TraceResponsePropagator
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, default_getter, default_setter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from telemetry import pipeline
from telemetry.context import SHOWS_TURN, UNTRUSTED_PARENT

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MEMBER = re.compile(
    r"([a-z0-9][a-z0-9_\-*/@]{0,255})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_MAX_MEMBERS = 32
# The member of a tracestate that says that the caller's span has the question and the answer of the turn.
_SHOWN = "telemetry-turn"

_calling: ContextVar[tuple[int, str] | None] = ContextVar("telemetry-calling", default=None)


class TrustedHosts(set[str]):
    """The hosts, with or without a port, that trace headers may be sent to."""


def trust(url: str) -> None:
    """Send trace headers with requests to this host.

    Args:
        url: an address, `host` or `host:port`.

    Example:
        >>> import telemetry
        >>> telemetry.trust("http://agents.example:8080")
    """
    pipeline.shared(TrustedHosts).add(netloc(url) if "//" in url else url.lower())


def note_call(span: trace.Span, url: str) -> None:
    """Note the host of this span's HTTP call, for the propagator that is called next."""
    _calling.set((span.get_span_context().span_id, netloc(url)))


class TrustedPropagator(TraceContextTextMapPropagator):
    """Send trace headers to trusted hosts, and accept them from trusted callers; never send baggage.

    Trace headers that a redirect left on a request to another host are removed. `trust_caller` gets an incoming
    `Authorization` header and returns whether its sender's trace is continued; otherwise the trace is linked.
    """

    def __init__(self) -> None:
        self.trust_caller: Callable[[str | None], bool] = lambda _: True

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the trace headers of a call to a trusted host; remove them from any other call."""
        span = trace.get_current_span(context)
        if _may_carry(span):
            super().inject(carrier, trace.set_span_in_context(_to_send(span, context), context), setter)
        elif hasattr(carrier, "pop"):
            for name in self.fields:
                carrier.pop(name, None)  # pyright: ignore[reportAttributeAccessIssue] - asked for above

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """Return the context that the caller's headers continue, or are linked to."""
        outside = context if context is not None else otel.get_current()
        sent = self._sent(carrier, getter)
        if sent is None:
            return outside
        authorization = next(iter(getter.get(carrier, "authorization") or []), None)
        if self.trust_caller(authorization):
            return trace.set_span_in_context(NonRecordingSpan(sent), outside)
        return otel.set_value(UNTRUSTED_PARENT, sent, outside)

    def _sent(self, carrier: CarrierT, getter: Getter[CarrierT]) -> SpanContext | None:
        # Two headers are ambiguous; the stock propagator would use the first.
        if len(getter.get(carrier, self._TRACEPARENT_HEADER_NAME) or []) != 1:
            return None
        sent = trace.get_current_span(super().extract(carrier, Context(), getter)).get_span_context()
        if not sent.is_valid:
            return None
        state = State.read(getter.get(carrier, self._TRACESTATE_HEADER_NAME) or [])
        return SpanContext(sent.trace_id, sent.span_id, is_remote=True, trace_flags=sent.trace_flags, trace_state=state)


class StartPropagator(TraceResponsePropagator):
    """Write the `traceresponse` header at the start of a response.

    The instrumentor calls it for each chunk of a stream as well, which has no headers.
    """

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the header, if this is the start of a response."""
        if not isinstance(carrier, dict) or carrier.get("type") != "http.response.body":
            super().inject(carrier, context, setter)


class State(TraceState):
    """A tracestate, read as in W3C Trace Context level 2: keys may be long, and of two equal ones the first counts."""

    @classmethod
    def read(cls, headers: Iterable[str]) -> Self:
        """Return the state of these headers; an empty one if a member is malformed or there are too many."""
        state = cls()
        members = [member.strip(" \t") for header in headers for member in header.split(",")]
        matches = [_MEMBER.fullmatch(member) for member in members if member]
        if len(matches) <= _MAX_MEMBERS and all(matches):
            for match in filter(None, matches):
                state._dict.setdefault(*match.groups())
        return state

    @classmethod
    def of(cls, others: TraceState, first: Mapping[str, str]) -> Self:
        """Return the state with these members at its front, and without what it said itself under our name."""
        state = cls()
        state._dict.update({**first, **{key: value for key, value in others.items() if key != _SHOWN}})
        return state


def caller_shows_texts(span: trace.Span | None) -> bool:
    """Return whether the caller of this span's process shows the turn's question and answer on a span of its own."""
    parent = getattr(span, "parent", None)
    return isinstance(parent, SpanContext) and parent.trace_state.get(_SHOWN) is not None


def _to_send(span: trace.Span, context: Context | None) -> trace.Span:
    """Return the span as its callee is to know it: what a caller has said to this process is not said to others."""
    known, shows = span.get_span_context(), bool(otel.get_value(SHOWS_TURN, context))
    if not shows and _SHOWN not in known.trace_state:
        return span
    state = State.of(known.trace_state, {_SHOWN: "shown"} if shows else {})
    return NonRecordingSpan(SpanContext(known.trace_id, known.span_id, known.is_remote, known.trace_flags, state))


def netloc(url: str) -> str:
    """Return `host:port` of an address; the default port is the scheme's."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)}"


def _may_carry(span: trace.Span) -> bool:
    span_id, host = _calling.get() or (0, "")
    return span_id == span.get_span_context().span_id and not pipeline.shared(TrustedHosts).isdisjoint(
        {host, host.rsplit(":", 1)[0]}
    )
