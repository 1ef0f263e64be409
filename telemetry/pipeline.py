"""The active pipeline, and all other state of this process. A leaf module: it imports nothing of ours.

Each part is found by its class, so that callers know its type:

    pipeline.put(Links(settings))
    links = pipeline.get(Links)  # Links | None

A part that every process has, such as the set of its running turns, is created at first use:

    pipeline.shared(RunningTurns).add(turn)
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracer, Tracer

T = TypeVar("T")

_parts: dict[type, Any] = {}


@dataclass
class Pipeline:
    """The tracing of this process: the provider of its spans."""

    provider: TracerProvider

    @cached_property
    def tracer(self) -> Tracer:
        """The tracer of our own spans, cached: the SDK takes as long to find one as to create a span."""
        return self.provider.get_tracer("telemetry")


def put(part: T) -> T:
    """Store a part in place of one of the same class, and return it."""
    _parts[type(part)] = part
    return part


def get(kind: type[T]) -> T | None:
    """Return the part of this class, None if there is none."""
    return _parts.get(kind)


def shared(kind: type[T]) -> T:
    """Return the part of this class; create it without arguments if there is none."""
    part = _parts.get(kind)
    # If two threads create one at the same time, both get the first.
    return _parts.setdefault(kind, kind()) if part is None else part


def remove(kind: type[T]) -> T | None:
    """Remove the part of this class, and return it."""
    return _parts.pop(kind, None)


def active() -> Pipeline | None:
    """Return the active pipeline, None with tracing off."""
    return _parts.get(Pipeline)


def tracer() -> Tracer:
    """Return the tracer of our own spans; with tracing off, one that creates none."""
    pipeline = _parts.get(Pipeline)
    return pipeline.tracer if pipeline else NoOpTracer()
