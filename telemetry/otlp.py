"""OTLP/HTTP trace requests, decoded: what the viewer stores and the test receiver asserts on."""

from dataclasses import dataclass, field
from typing import Any

Attributes = dict[str, Any]


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
