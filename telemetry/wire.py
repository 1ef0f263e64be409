"""What happens between a finished span and the wire: one list of plain functions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from opentelemetry.sdk.trace import ReadableSpan

from telemetry import failures, otlp
from telemetry.otlp import Span
from telemetry.settings import Settings

Stage = Callable[[Span], Span]

# A name of plain words tells nothing that it should not.
_HARMLESS_RESOURCE = {"service.name", "deployment.environment.name", "telemetry.sdk.name", "telemetry.sdk.language"}
_HARMLESS_NAME = re.compile(r"[A-Za-z_ ]{1,40}")


def stages(settings: Settings) -> tuple[Stage, ...]:  # noqa: ARG001 - the stages that read them come next
    """Return what each span goes through, in this order."""
    return ()


def prepare(span: ReadableSpan, stages: Sequence[Stage]) -> bytes:
    """Return the span as an export request of its own, after all the stages; never raises.

    Where a stage does, the span goes without its content, says so, and is counted.
    """
    data = otlp.from_sdk(span)
    try:
        for stage in stages:
            data = stage(data)
        return otlp.encode(data)
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing unredacted may leave
        failures.count("prepare a span", error)
        return otlp.encode(_stub(data, error))


def _stub(span: Span, error: Exception) -> Span:
    reason = f"content withheld: preparing this span failed with {type(error).__name__}"
    return replace(
        span,
        name=span.name if _HARMLESS_NAME.fullmatch(span.name) else "withheld",
        attributes={"langfuse.observation.level": "WARNING", "langfuse.observation.status_message": reason},
        message="",
        events=[],
        links=[replace(link, attributes={}) for link in span.links],
        resource={key: span.resource[key] for key in _HARMLESS_RESOURCE & span.resource.keys()},
        trace_state="",
    )
