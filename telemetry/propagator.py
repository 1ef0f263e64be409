"""W3C Trace Context, to trusted hosts and from trusted callers only."""

import re
from collections.abc import Callable, Iterable
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

from telemetry.context import REFUSED

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MEMBER = re.compile(
    r"([a-z0-9][a-z0-9_\-*/@]{0,255})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_MAX_MEMBERS = 32

_trusted: set[str] = set()
_calling: ContextVar[tuple[int, str] | None] = ContextVar("telemetry-calling", default=None)


def trust(url: str) -> None:
    """Let requests to this address (or `host`, or `host:port`) carry the trace."""
    _trusted.add(_netloc(url) if "//" in url else url.lower())


def note_call(span: trace.Span, url: str) -> None:
    """Remember where the HTTP call of this span goes, for the propagator that is asked next."""
    _calling.set((span.get_span_context().span_id, _netloc(url)))


class TrustedPropagator(TraceContextTextMapPropagator):
    """Trace headers to trusted hosts and from trusted callers; baggage never.

    A request that goes elsewhere loses the trace headers that a redirect left on it. `honours` says of an incoming
    `Authorization` header whether its sender may continue a trace of ours; a trace that may not be continued is linked.
    """

    def __init__(self) -> None:
        self.honours: Callable[[str | None], bool] = lambda _: True

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the trace headers of a call to a trusted host; remove them from any other."""
        if _may_carry(trace.get_current_span(context)):
            super().inject(carrier, context, setter)
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
        if self.honours(authorization):
            return trace.set_span_in_context(NonRecordingSpan(sent), outside)
        return otel.set_value(REFUSED, sent, outside)

    def _sent(self, carrier: CarrierT, getter: Getter[CarrierT]) -> SpanContext | None:
        # Two of them say nothing; the stock propagator would take the first.
        if len(getter.get(carrier, self._TRACEPARENT_HEADER_NAME) or []) != 1:
            return None
        sent = trace.get_current_span(super().extract(carrier, Context(), getter)).get_span_context()
        if not sent.is_valid:
            return None
        state = State.read(getter.get(carrier, self._TRACESTATE_HEADER_NAME) or [])
        return SpanContext(sent.trace_id, sent.span_id, is_remote=True, trace_flags=sent.trace_flags, trace_state=state)


class StartPropagator(TraceResponsePropagator):
    """The `traceresponse` header where a response starts.

    The instrumentor asks for it with each piece of a stream as well, which has no headers.
    """

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the header, if this is where it belongs."""
        if not isinstance(carrier, dict) or carrier.get("type") != "http.response.body":
            super().inject(carrier, context, setter)


class State(TraceState):
    """A tracestate read as W3C Trace Context level 2 has it: wide keys, and of two equal ones the first."""

    @classmethod
    def read(cls, headers: Iterable[str]) -> Self:
        """Return the state of these headers; an empty one where a member is malformed or there are too many."""
        state = cls()
        members = [member.strip(" \t") for header in headers for member in header.split(",")]
        matches = [_MEMBER.fullmatch(member) for member in members if member]
        if len(matches) <= _MAX_MEMBERS and all(matches):
            for match in filter(None, matches):
                state._dict.setdefault(*match.groups())
        return state


def _netloc(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)}"


def _may_carry(span: trace.Span) -> bool:
    span_id, host = _calling.get() or (0, "")
    return span_id == span.get_span_context().span_id and not _trusted.isdisjoint({host, host.rsplit(":", 1)[0]})
