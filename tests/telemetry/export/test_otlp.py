"""Decoding against the real encoder, and against whatever else may come."""

import base64
import gzip
import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from telemetry.export import otlp

PROTOBUF = "application/x-protobuf"
JSON = "application/json; charset=utf-8"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT_IS_NOT_REMOTE = 0x100
HEX = ("traceId", "spanId", "parentSpanId")


@pytest.fixture(scope="module")
def finished() -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("the.scope")
    with tracer.start_as_current_span("root", kind=SpanKind.SERVER) as root:
        root.set_attributes({"text": "ü", "yes": True, "int": 2**62, "float": 0.5, "list": ["a", "b"], "none": ()})
        root.add_event("half way", {"percent": 50}, timestamp=7)
        with tracer.start_as_current_span("child", links=[Link(root.get_span_context(), {"why": "because"})]) as child:
            child.set_status(Status(StatusCode.ERROR, "no"))
    provider.shutdown()
    return list(exporter.get_finished_spans())


def otlp_json(message: ExportTraceServiceRequest, *, numbers: bool) -> dict[str, Any]:
    """The message as OTLP/JSON has it: ids in hex, enums as numbers; with names as some senders do."""

    def hex_ids(fields: dict[str, Any]) -> dict[str, Any]:
        return {name: base64.b64decode(value).hex() if name in HEX else value for name, value in fields.items()}

    text = json_format.MessageToJson(message, use_integers_for_enums=numbers)
    return json.loads(text, object_hook=hex_ids)


def one(**span: Any) -> bytes:
    """A JSON request with one span that is right but for what is given."""
    whole = {"traceId": TRACE, "spanId": SPAN, "name": "n"} | span
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [whole]}]}]}).encode()


def test_what_the_sdk_encodes_comes_back(finished: list[ReadableSpan]) -> None:
    """Every field of a span that the real exporter writes is read again."""
    child, root = otlp.decode(encode_spans(finished).SerializeToString(), PROTOBUF)
    assert root.attributes == {
        "text": "ü",
        "yes": True,
        "int": 2**62,
        "float": 0.5,
        "list": ["a", "b"],
        "none": [],
    }
    assert (root.name, root.kind, root.parent_id, root.scope) == ("root", "SERVER", None, "the.scope")
    assert root.resource == {"service.name": "shop"}
    assert root.events == [otlp.Event("half way", 7, {"percent": 50})]
    assert (child.parent_id, child.trace_id, child.kind) == (root.span_id, root.trace_id, "INTERNAL")
    assert (child.status, child.message, root.status) == ("ERROR", "no", "UNSET")
    assert child.links == [otlp.Link(root.trace_id, root.span_id, {"why": "because"})]
    assert (root.start, root.end) == (finished[1].start_time, finished[1].end_time)
    assert root.flags == CONTEXT_IS_NOT_REMOTE


@pytest.mark.parametrize("numbers", [True, False])
def test_json_says_the_same_as_protobuf(finished: list[ReadableSpan], numbers: bool) -> None:
    """OTLP/JSON, with hex ids, integers as strings and enums as numbers or names, gives equal spans."""
    message = encode_spans(finished)
    body = json.dumps(otlp_json(message, numbers=numbers)).encode()
    assert otlp.decode(body, JSON) == otlp.decode(message.SerializeToString(), PROTOBUF)


def test_gzip_says_the_same(finished: list[ReadableSpan]) -> None:
    """A compressed body decodes to the same spans."""
    body = encode_spans(finished).SerializeToString()
    assert otlp.decode(gzip.compress(body), PROTOBUF, "gzip") == otlp.decode(body, PROTOBUF)


def test_every_kind_of_value() -> None:
    """Bytes, nested lists, maps and nothing at all come as Python's own."""
    nested = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=AnyValue(double_value=1.5))]))
    values = ArrayValue(values=[AnyValue(bytes_value=b"\xff"), AnyValue(), nested])
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id = bytes.fromhex(TRACE), bytes.fromhex(SPAN)
    span.attributes.add(key="all", value=AnyValue(array_value=values))
    [decoded] = otlp.decode(request.SerializeToString(), PROTOBUF)
    assert decoded.attributes == {"all": [b"\xff", None, {"k": 1.5}]}


def test_an_empty_request_has_no_spans() -> None:
    """Nothing sent is nothing decoded, and no error."""
    assert otlp.decode(b"", PROTOBUF) == otlp.decode(b"{}", JSON) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (one(traceId="ab"), "trace id must be 16 bytes"),
        (one(traceId="0" * 32), "trace id must be 16 bytes"),
        (one(traceId="x" * 32), "traceId must be a string of hex digits"),
        (one(traceId=7), "traceId must be a string of hex digits"),
        (one(spanId=""), "span id must be 8 bytes"),
        (one(parentSpanId="ab"), "parent span id must be 8 bytes"),
        (one(links=[{"traceId": "ab", "spanId": SPAN}]), "trace id of a link must be"),
        (one(attributes={"a": 1}), "attributes"),
        (one(startTimeUnixNano=str(2**64 - 1)), "beyond the year 2262"),
        (b"{", "not a JSON"),
        (b"[]", "not an object"),
        (b"\xff\xfe", "not a JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_malformed_json_is_refused_with_a_sentence(body: bytes, says: str) -> None:
    """One bad span, or no request at all, refuses the whole body and says why."""
    with pytest.raises(otlp.Malformed, match=says):
        otlp.decode(body, JSON)


@pytest.mark.parametrize(
    ("body", "kind", "encoding"),
    [
        (b"\xff\xff", PROTOBUF, None),
        (b"", "text/plain", None),
        (b"", PROTOBUF, "br"),
        (b"not gzip", PROTOBUF, "gzip"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], PROTOBUF, "gzip"),
    ],
)
def test_broken_bodies_are_malformed(body: bytes, kind: str, encoding: str | None) -> None:
    """Broken protobuf, broken gzip and unknown kinds are refused."""
    with pytest.raises(otlp.Malformed):
        otlp.decode(body, kind, encoding)


def test_a_gzip_bomb_costs_no_memory() -> None:
    """What unpacks to more than the limit is refused before it is unpacked."""
    bomb = gzip.compress(bytes(200 * 1024 * 1024), compresslevel=1)
    tracemalloc.start()
    try:
        with pytest.raises(otlp.TooLarge):
            otlp.decode(bomb, PROTOBUF, "gzip", limit=1024 * 1024)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_large_plain_body_is_refused() -> None:
    """The limit holds for bodies that are not compressed as well."""
    with pytest.raises(otlp.TooLarge):
        otlp.decode(bytes(11), PROTOBUF, limit=10)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [*HEX, "name", "kind", "startTimeUnixNano", "attributes", "events", "links", "status", "flags"]
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([PROTOBUF, JSON, ""]), st.sampled_from([None, "gzip", "x"]))
def test_hostile_bytes_are_never_another_error(body: bytes, kind: str, encoding: str | None) -> None:
    """Any bytes under any headers decode, or are malformed."""
    with suppress(otlp.Malformed):
        otlp.decode(body, kind, encoding)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(FIELDS, JSON_VALUES, max_size=4), JSON_VALUES)
def test_hostile_json_is_never_another_error(span: dict[str, Any], outer: Any) -> None:
    """Any JSON in any field of a span, or around it, decodes or is malformed."""
    for body in (one(**span), json.dumps({"resourceSpans": outer}).encode(), json.dumps(outer).encode()):
        with suppress(otlp.Malformed):
            otlp.decode(body, JSON)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_requests_are_never_another_error(finished: list[ReadableSpan], data: st.DataObject) -> None:
    """A real request with some bytes changed decodes or is malformed."""
    body = bytearray(encode_spans(finished).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(otlp.Malformed):
        otlp.decode(bytes(body), PROTOBUF)


def test_what_all_spans_share_is_counted_with_each_of_them() -> None:
    """A small request whose resource is written a thousand times is refused; a batch of a real size is not."""
    values = [{"key": f"k{number}", "value": {"stringValue": "v"}} for number in range(10_000)]
    span = {"traceId": "1" * 32, "spanId": "2" * 16, "name": "n", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}

    def batch(resource: int, scope: int, spans: int) -> bytes:
        scoped = {"scope": {"name": "s", "attributes": values[:scope]}, "spans": [span] * spans}
        group = {"resource": {"attributes": values[:resource]}, "scopeSpans": [scoped]}
        return json.dumps({"resourceSpans": [group]}).encode()

    for sizes in ((10_000, 0, 1_000), (0, 10_000, 1_000)):
        with pytest.raises(otlp.TooLarge):
            otlp.decode(batch(*sizes), "application/json")
    assert len(otlp.decode(batch(100, 10, 2_000), "application/json")) == 2_000
