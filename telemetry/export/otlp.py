"""Encode and decode OTLP/HTTP trace requests, and convert the SDK's spans."""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

from telemetry.export import protobuf
from telemetry.export.media import Attachment
from telemetry.lru_cache import cache_last
from telemetry.messages_json import MessagesJson
from telemetry.moment import LAST_TIME

Attributes = dict[str, Any]

LIMIT = 64 * 1024 * 1024
# A small request can contain very many tiny parts, each of which costs more than its size suggests.
MAX_SPANS = 10_000
MAX_PARTS = 200_000
_NAMES = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_HAS_REMOTE = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_KINDS = {kind: trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{kind}") for kind in _NAMES}
_STATUSES = {status: at for at, status in enumerate(("UNSET", "OK", "ERROR"))}


class Malformed(ValueError):  # noqa: N818 - the name says what the body is
    """The body is not an OTLP trace request; the message says what is wrong with it."""


class TooLarge(ValueError):  # noqa: N818 - the name says what the body is
    """The body is larger than the limit, compressed or not."""


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
    scope_version: str = ""
    scope_attributes: Attributes = field(default_factory=dict)
    flags: int = 0
    trace_state: str = ""

    def but(self, **changes: Any) -> Self:
        """Return the span with some fields changed; `dataclasses.replace` takes ten times as long."""
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__, **changes)
        return changed


@dataclass(frozen=True)
class RedactedSpan(Span):
    """A span without secrets: what `SpanRedactor` returns and the encoder takes."""

    # The files that are sent beside the span; there are references to them in it.
    attachments: tuple[Attachment, ...] = ()

    @classmethod
    def of(cls, span: Span, **changes: Any) -> Self:
        """Return a span that is known to contain no secret, with some fields changed."""
        redacted = object.__new__(cls)
        redacted.__dict__.update(span.__dict__, **changes)
        return redacted


class EncodedSpan(bytes):
    """A span as an export request, and the files that are sent beside it."""

    attachments: tuple[Attachment, ...]

    def __new__(cls, body: bytes, attachments: tuple[Attachment, ...]) -> Self:
        """Return the request with its files."""
        encoded = super().__new__(cls, body)
        encoded.attachments = attachments
        return encoded


def from_sdk(span: ReadableSpan) -> Span:
    """Return a copy of the data of an SDK span; only its resource is shared, with other spans."""
    context, parent, status, scope = span.get_span_context(), span.parent, span.status, span.instrumentation_scope
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
        scope=_valid(scope.name) if scope else "",
        scope_version=_valid(scope.version or "") if scope else "",
        scope_attributes=_plain(scope.attributes or {}) if scope else {},
        flags=_HAS_REMOTE | (_REMOTE if parent and parent.is_remote else 0),
        trace_state=context.trace_state.to_header(),
    )


def _plain_attributes(attributes: Mapping[str, Any]) -> Attributes:
    # Iterating over the SDK's own mapping is slow.
    copied = attributes.copy() if isinstance(attributes, MappingProxyType) else attributes
    return {
        key if key.isascii() else _valid(key): (
            # Text that was joined from JSON is valid UTF-8 already.
            value
            if (value.__class__ is str and value.isascii()) or value.__class__ in (int, bool, MessagesJson)
            else _plain(value)
        )
        for key, value in copied.items()
    }


@cache_last
def _plain_resource(resource: Resource) -> Attributes:
    return _plain(resource.attributes)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _valid(value)
    if isinstance(value, (bytes, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_valid(str(key)): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) else value


def encode(span: RedactedSpan) -> bytes:
    """Return an export request with this span only; requests may be concatenated."""
    block, filled, text = protobuf.block, protobuf.filled, protobuf.text
    fields = (
        filled(1, bytes.fromhex(span.trace_id)),
        filled(2, bytes.fromhex(span.span_id)),
        filled(3, text(span.trace_state)),
        filled(4, bytes.fromhex(span.parent_id or "")),
        filled(5, text(span.name)),
        protobuf.varint(6, _KINDS[span.kind]),
        protobuf.fixed(7, span.start),
        protobuf.fixed(8, span.end),
        protobuf.pairs(9, span.attributes),
        *[
            block(11, protobuf.fixed(1, each.time) + filled(2, text(each.name)) + protobuf.pairs(3, each.attributes))
            for each in span.events
        ],
        *[
            block(
                13,
                filled(1, bytes.fromhex(each.trace_id))
                + filled(2, bytes.fromhex(each.span_id))
                + protobuf.pairs(4, each.attributes),
            )
            for each in span.links
        ],
        block(15, filled(2, text(span.message)) + protobuf.varint(3, _STATUSES[span.status])),
        protobuf.fixed(16, span.flags, "<I"),
    )
    scope = filled(1, text(span.scope)) + filled(2, text(span.scope_version)) + protobuf.pairs(3, span.scope_attributes)
    return block(1, _resource(span.resource) + block(2, block(1, scope) + block(2, b"".join(fields))))


@cache_last
def _resource(attributes: Attributes) -> bytes:
    return protobuf.block(1, protobuf.pairs(1, attributes))


def _valid(text: str) -> str:
    """Replace unpaired surrogates, which Python allows in a string and UTF-8 does not."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def decode(body: bytes, content_type: str, content_encoding: str | None = None, limit: int = LIMIT) -> list[Span]:
    """Return the spans of a trace export request, protobuf or JSON.

    Raises `Malformed` if any part of it is invalid, and `TooLarge` if it has more than `limit` bytes uncompressed, or
    more spans, events, links and attributes than a request may have.
    """
    request = _parse(_unpack(body, content_encoding, limit), content_type)
    _check_counts(request)
    return [
        _span(span, resource, scoped.scope, scope_attributes)
        for group in request.resource_spans
        for resource in [_attributes(group.resource.attributes)]
        for scoped in group.scope_spans
        for scope_attributes in [_attributes(scoped.scope.attributes)]
        for span in scoped.spans
    ]


def _check_counts(request: ExportTraceServiceRequest) -> None:
    scopes = [scoped for group in request.resource_spans for scoped in group.scope_spans]
    if sum(len(scoped.spans) for scoped in scopes) > MAX_SPANS:
        raise TooLarge(f"The request has more than {MAX_SPANS} spans; send fewer at once.")
    # Each span is written with its resource and its scope.
    copied = sum(
        len(scoped.spans) * (group.resource.ByteSize() + scoped.scope.ByteSize())
        for group in request.resource_spans
        for scoped in group.scope_spans
    )
    if copied > LIMIT:
        raise TooLarge(f"Resources and scopes, each written with all its spans, have more than {LIMIT} bytes.")
    left = MAX_PARTS - len(request.resource_spans) - len(scopes)
    for span in (span for scoped in scopes for span in scoped.spans):
        left -= len(span.attributes) + len(span.events) + len(span.links)
        if left > 0:
            left -= sum(_count(pair.value) for pair in span.attributes)
            left -= sum(len(event.attributes) for event in span.events)
        if left <= 0:
            raise TooLarge(f"The request has more than {MAX_PARTS} events, links and values; send less at once.")


def _count(value: AnyValue) -> int:
    """Return the number of values in a value, at any depth."""
    match value.WhichOneof("value"):
        case "array_value":
            return sum(1 + _count(item) for item in value.array_value.values)
        case "kvlist_value":
            return sum(1 + _count(pair.value) for pair in value.kvlist_value.values)
    return 0


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
            try:
                return ExportTraceServiceRequest.FromString(body)
            except DecodeError as error:
                raise Malformed("The body is not a valid ExportTraceServiceRequest.") from error
        case "application/json":
            return _parse_json(body)
        case _:
            raise Malformed("The content type must be application/x-protobuf or application/json.")


def _parse_json(body: bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    try:
        document = json.loads(body, object_hook=_hex_ids_to_base64)
        if isinstance(document, dict):
            return json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except Malformed:
        raise
    except json_format.ParseError as error:
        raise Malformed(f"The JSON is not an ExportTraceServiceRequest: {error}") from error
    except RecursionError as error:
        raise Malformed("The JSON is nested too deeply.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise Malformed("The body is not a JSON ExportTraceServiceRequest.") from error
    raise Malformed("The JSON is not an object.")


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


def _span(span: trace_pb2.Span, resource: Attributes, scope: InstrumentationScope, attributes: Attributes) -> Span:
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
        events=[Event(event.name, _time(event.time_unix_nano), _attributes(event.attributes)) for event in span.events],
        links=[
            Link(
                _id("trace id of a link", link.trace_id, 16),
                _id("span id of a link", link.span_id, 8),
                _attributes(link.attributes),
            )
            for link in span.links
        ],
        resource=resource,
        scope=scope.name,
        scope_version=scope.version,
        scope_attributes=attributes,
        flags=span.flags,
        trace_state=span.trace_state,
    )


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
