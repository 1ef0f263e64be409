"""What is joined by hand is, byte by byte, what opentelemetry-proto makes of the same span."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from telemetry.export import otlp

TEXT = st.one_of(st.text(max_size=9), st.text(min_size=120, max_size=300), st.just("half a \ud800 pair"))
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(max_size=300),
)
VALUE = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=4
)
ATTRIBUTES = st.dictionaries(TEXT, VALUE, max_size=3)
TIME = st.integers(0, 2**64 - 1)
EVENTS = st.lists(st.builds(otlp.Event, TEXT, TIME, ATTRIBUTES), max_size=1)
LINKS = st.lists(st.builds(otlp.Link, st.just("0a" * 16), st.just("0b" * 8), ATTRIBUTES), max_size=1)
SPANS = st.builds(
    otlp.RedactedSpan,
    trace_id=st.just("0af7651916cd43dd8448eb211c80319c"),
    span_id=st.just("b7ad6b7169203331"),
    parent_id=st.sampled_from([None, "00f067aa0ba902b7"]),
    name=TEXT,
    kind=st.sampled_from(["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]),
    start=TIME,
    end=TIME,
    attributes=ATTRIBUTES,
    status=st.sampled_from(["UNSET", "OK", "ERROR"]),
    message=TEXT,
    events=EVENTS,
    links=LINKS,
    resource=ATTRIBUTES,
    scope=TEXT,
    scope_version=TEXT,
    scope_attributes=ATTRIBUTES,
    flags=st.integers(0, 2**32 - 1),
    trace_state=TEXT,
)


@settings(max_examples=100, deadline=None)
@given(span=SPANS)
def test_every_byte_is_that_of_opentelemetry_proto(span: otlp.RedactedSpan) -> None:
    """Whatever a span holds: text beyond Unicode, numbers beyond 64 bits, values within values."""
    assert otlp.encode(span) == _message(span).SerializeToString(deterministic=True)


def _message(span: otlp.Span) -> ExportTraceServiceRequest:
    message = trace_pb2.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id or ""),
        name=_valid(span.name),
        kind=trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{span.kind}"),
        start_time_unix_nano=span.start,
        end_time_unix_nano=span.end,
        attributes=_pairs(span.attributes),
        events=[
            trace_pb2.Span.Event(name=_valid(e.name), time_unix_nano=e.time, attributes=_pairs(e.attributes))
            for e in span.events
        ],
        links=[
            trace_pb2.Span.Link(
                trace_id=bytes.fromhex(link.trace_id),
                span_id=bytes.fromhex(link.span_id),
                attributes=_pairs(link.attributes),
            )
            for link in span.links
        ],
        status=trace_pb2.Status(
            code=trace_pb2.Status.StatusCode.Value(f"STATUS_CODE_{span.status}"), message=_valid(span.message)
        ),
        flags=span.flags,
        trace_state=_valid(span.trace_state),
    )
    scope = InstrumentationScope(
        name=_valid(span.scope), version=_valid(span.scope_version), attributes=_pairs(span.scope_attributes)
    )
    scoped = trace_pb2.ScopeSpans(scope=scope, spans=[message])
    group = trace_pb2.ResourceSpans(resource=Resource(attributes=_pairs(span.resource)), scope_spans=[scoped])
    return ExportTraceServiceRequest(resource_spans=[group])


def _pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=_valid(key), value=_any(value)) for key, value in attributes.items()]


def _any(value: Any) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=_valid(value))
        case bool():
            return AnyValue(bool_value=value)
        case int() if -(2**63) <= value < 2**63:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=_pairs(value)))
        case list():
            return AnyValue(array_value=ArrayValue(values=[_any(item) for item in value]))
        case None:
            return AnyValue()
        case _:
            return AnyValue(string_value=str(value))


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
