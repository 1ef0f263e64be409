"""OTLP/HTTP trace requests, decoded: what the viewer stores and the test receiver asserts on."""

import base64
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Attributes = dict[str, Any]

LIMIT = 64 * 1024 * 1024
LAST_TIME = 2**63 - 1


class Malformed(ValueError):  # noqa: N818 - the name says what the body is
    """The body is not an OTLP trace request; the message says what is wrong with it."""


class TooLarge(ValueError):  # noqa: N818 - the name says what the body is
    """The body, or what it unpacks to, is larger than the limit."""


@dataclass(frozen=True)
class Event:
    """One event of a span."""

    name: str
    time: int
    attributes: Attributes


@dataclass(frozen=True)
class Link:
    """One link of a span to another."""

    trace_id: str
    span_id: str
    attributes: Attributes


@dataclass(frozen=True)
class Span:
    """One span as it came over the wire: ids in lower-case hex, times in Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start: int
    end: int
    attributes: Attributes
    status: str = "UNSET"
    message: str = ""
    events: list[Event] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    resource: Attributes = field(default_factory=dict)
    scope: str = ""
    flags: int = 0


def decode(body: bytes, content_type: str, content_encoding: str | None = None, limit: int = LIMIT) -> list[Span]:
    """Return the spans of a trace export request, protobuf or JSON.

    Raises `Malformed` if any part of it is, and `TooLarge` where it unpacks to more than `limit` bytes.
    """
    return list(_spans(_parse(_unpack(body, content_encoding, limit), content_type)))


def _unpack(body: bytes, encoding: str | None, limit: int) -> bytes:
    match (encoding or "identity").strip().lower():
        case "gzip":
            body = _gunzip(body, limit)
        case "identity":
            pass
        case _:
            raise Malformed("The content encoding must be gzip or identity.")
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    gzip = zlib.decompressobj(31)
    try:
        unpacked = gzip.decompress(body, limit + 1)
    except zlib.error as error:
        raise Malformed("The body is not valid gzip.") from error
    if len(unpacked) > limit:
        raise _too_large(limit)
    if not gzip.eof or gzip.unused_data:
        raise Malformed("The body is not one complete gzip stream.")
    return unpacked


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request is larger than {limit} bytes; send fewer spans at once.")


def _parse(body: bytes, content_type: str) -> ExportTraceServiceRequest:
    match content_type.split(";")[0].strip().lower():
        case "application/x-protobuf":
            return _parse_protobuf(body)
        case "application/json":
            return _parse_json(body)
        case _:
            raise Malformed("The content type must be application/x-protobuf or application/json.")


def _parse_protobuf(body: bytes) -> ExportTraceServiceRequest:
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise Malformed("The body is not a valid ExportTraceServiceRequest.") from error


def _parse_json(body: bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    try:
        document = json.loads(body, object_hook=_hex_ids_to_base64)
        return json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except Malformed:
        raise
    except json_format.ParseError as error:
        raise Malformed(f"The JSON is not an ExportTraceServiceRequest: {error}") from error
    except RecursionError as error:
        raise Malformed("The JSON is nested too deeply.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise Malformed("The body is not a JSON ExportTraceServiceRequest.") from error


def _hex_ids_to_base64(fields: Attributes) -> Attributes:
    """OTLP/JSON writes ids in hex where the JSON of protobuf, and so its parser, has base64."""
    for name in ("traceId", "spanId", "parentSpanId"):
        if fields.get(name) is not None:
            fields[name] = _hex_to_base64(name, fields[name])
    return fields


def _hex_to_base64(name: str, value: Any) -> str:
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (TypeError, ValueError) as error:
        raise Malformed(f"{name} must be a string of hex digits.") from error


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                yield _span(span, resource, scoped.scope.name)


def _span(span: trace_pb2.Span, resource: Attributes, scope: str) -> Span:
    return Span(
        trace_id=_id("trace id", span.trace_id, 16),
        span_id=_id("span id", span.span_id, 8),
        parent_id=_id("parent span id", span.parent_span_id, 8) if span.parent_span_id else None,
        name=span.name,
        kind=_enum(trace_pb2.Span.SpanKind, span.kind, "SPAN_KIND_", "INTERNAL"),
        start=_time(span.start_time_unix_nano),
        end=_time(span.end_time_unix_nano),
        attributes=_attributes(span.attributes),
        status=_enum(trace_pb2.Status.StatusCode, span.status.code, "STATUS_CODE_", "UNSET"),
        message=span.status.message,
        events=[_event(event) for event in span.events],
        links=[_link(link) for link in span.links],
        resource=resource,
        scope=scope,
        flags=span.flags,
    )


def _event(event: trace_pb2.Span.Event) -> Event:
    return Event(event.name, _time(event.time_unix_nano), _attributes(event.attributes))


def _link(link: trace_pb2.Span.Link) -> Link:
    trace_id = _id("trace id of a link", link.trace_id, 16)
    return Link(trace_id, _id("span id of a link", link.span_id, 8), _attributes(link.attributes))


def _id(what: str, value: bytes, size: int) -> str:
    if len(value) != size or not any(value):
        raise Malformed(f"A {what} must be {size} bytes, not all of them zero; this one is {value.hex()!r}.")
    return value.hex()


def _time(nanoseconds: int) -> int:
    if nanoseconds > LAST_TIME:
        raise Malformed(f"The time {nanoseconds} is beyond the year 2262.")
    return nanoseconds


def _enum(enum: Any, number: int, prefix: str, unknown: str) -> str:
    if number not in enum.values():
        return unknown
    name = enum.Name(number).removeprefix(prefix)
    return unknown if name == "UNSPECIFIED" else name


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case kind:
            return getattr(value, kind)
