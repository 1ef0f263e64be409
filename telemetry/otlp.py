"""OTLP/HTTP trace requests and the spans in them: taken from the SDK, encoded, decoded."""

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

from telemetry import protobuf
from telemetry.said import Said

Attributes = dict[str, Any]

LIMIT = 64 * 1024 * 1024
LAST_TIME = 2**63 - 1
_NAMES = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_HAS_REMOTE = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_KINDS = {kind: trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{kind}") for kind in _NAMES}
_STATUSES = {status: at for at, status in enumerate(("UNSET", "OK", "ERROR"))}


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
    """One span as it is on the wire: ids in lower-case hex, times in Unix nanoseconds."""

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
    trace_state: str = ""

    def but(self, **changes: Any) -> "Span":
        """Return the span with some fields changed; `dataclasses.replace` takes ten times as long."""
        changed = object.__new__(Span)
        changed.__dict__.update(self.__dict__, **changes)
        return changed


def from_sdk(span: ReadableSpan) -> Span:
    """Return the data of a span of the SDK; nothing in it is shared with the span, its resource with other spans."""
    context, parent, status = span.get_span_context(), span.parent, span.status
    assert context  # noqa: S101 - a span that was started has a context; only the type says otherwise
    return Span(
        trace_id=format_trace_id(context.trace_id),
        span_id=format_span_id(context.span_id),
        parent_id=format_span_id(parent.span_id) if parent else None,
        name=_valid(span.name),
        kind=span.kind.name,
        start=span.start_time or 0,
        end=span.end_time or 0,
        attributes=_plain_attributes(span.attributes or {}),
        status=status.status_code.name,
        message=_valid(status.description or ""),
        events=[Event(_valid(event.name), event.timestamp, _plain(event.attributes or {})) for event in span.events],
        links=[
            Link(
                format_trace_id(link.context.trace_id),
                format_span_id(link.context.span_id),
                _plain(link.attributes or {}),
            )
            for link in span.links
        ],
        resource=_plain_resource(span.resource),
        scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
        flags=_HAS_REMOTE | (_REMOTE if parent and parent.is_remote else 0),
        trace_state=context.trace_state.to_header(),
    )


def _plain_attributes(attributes: Mapping[str, Any]) -> Attributes:
    # The SDK's own mapping is slow to walk through.
    copied = attributes.copy() if isinstance(attributes, MappingProxyType) else attributes
    return {
        key if key.isascii() else _valid(key): (
            # What is joined from JSON was UTF-8 already.
            value
            if (value.__class__ is str and value.isascii()) or value.__class__ in (int, bool, Said)
            else _plain(value)
        )
        for key, value in copied.items()
    }


def _plain_resource(resource: Resource) -> Attributes:
    global _known_resource
    known, plain = _known_resource
    if known is not resource:
        plain = _plain(resource.attributes)
        _known_resource = (resource, plain)
    return plain


_known_resource: tuple[Resource | None, Attributes] = (None, {})


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _valid(value)
    if isinstance(value, (bytes, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_valid(str(key)): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) else value


def encode(span: Span) -> bytes:
    """Return an export request with this span alone; requests may be joined by putting one behind the other."""
    scoped = protobuf.block(1, protobuf.filled(1, protobuf.text(span.scope))) + protobuf.block(2, _body(span))
    return protobuf.block(1, _resource(span.resource) + protobuf.block(2, scoped))


def _body(span: Span) -> bytes:
    status = protobuf.filled(2, protobuf.text(span.message)) + protobuf.varint(3, _STATUSES[span.status])
    return b"".join(
        (
            protobuf.filled(1, bytes.fromhex(span.trace_id)),
            protobuf.filled(2, bytes.fromhex(span.span_id)),
            protobuf.filled(3, protobuf.text(span.trace_state)),
            protobuf.filled(4, bytes.fromhex(span.parent_id or "")),
            protobuf.filled(5, protobuf.text(span.name)),
            protobuf.varint(6, _KINDS[span.kind]),
            protobuf.fixed(7, span.start),
            protobuf.fixed(8, span.end),
            protobuf.pairs(9, span.attributes),
            *[protobuf.block(11, _event_body(event)) for event in span.events],
            *[protobuf.block(13, _link_body(link)) for link in span.links],
            protobuf.block(15, status),
            protobuf.fixed(16, span.flags, "<I"),
        )
    )


def _event_body(event: Event) -> bytes:
    name = protobuf.filled(2, protobuf.text(event.name))
    return protobuf.fixed(1, event.time) + name + protobuf.pairs(3, event.attributes)


def _link_body(link: Link) -> bytes:
    ids = protobuf.filled(1, bytes.fromhex(link.trace_id)) + protobuf.filled(2, bytes.fromhex(link.span_id))
    return ids + protobuf.pairs(4, link.attributes)


def _resource(attributes: Attributes) -> bytes:
    # All spans of a process have one; it is encoded when it changes.
    global _encoded
    known, body = _encoded
    if known is not attributes:
        body = protobuf.block(1, protobuf.pairs(1, attributes))
        _encoded = (attributes, body)
    return body


_encoded: tuple[Attributes, bytes] = ({}, b"")


def _valid(text: str) -> str:
    """Half of a surrogate pair is a string in Python and cannot be UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


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
        return json_format.ParseDict(_object(document), request, ignore_unknown_fields=True)
    except Malformed:
        raise
    except json_format.ParseError as error:
        raise Malformed(f"The JSON is not an ExportTraceServiceRequest: {error}") from error
    except RecursionError as error:
        raise Malformed("The JSON is nested too deeply.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise Malformed("The body is not a JSON ExportTraceServiceRequest.") from error


def _object(document: Any) -> Attributes:
    if not isinstance(document, dict):
        raise Malformed("The JSON is not an object.")
    return document


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
        trace_state=span.trace_state,
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
