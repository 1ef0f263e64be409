"""What happens between a finished span and the wire: one list of plain functions."""

import re
from collections.abc import Callable, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, Status

from telemetry import failures, otlp, shape
from telemetry.otlp import Span
from telemetry.redact import Fence, Redact
from telemetry.settings import Settings
from telemetry.shape.error import brief
from telemetry.shape.http import short_name
from telemetry.shape.tool import previewed
from telemetry.shorten import shorten

Stage = Callable[[Span], Span]

# A name of plain words, or of a service, tells nothing that it should not.
_HARMLESS_NAME = re.compile(r"[A-Za-z_ ]{1,40}")
_HARMLESS_RESOURCE = ("service.name", "service.version", "deployment.environment.name", "langfuse.release")
STUB = "telemetry.withheld"


def stages(settings: Settings) -> tuple[Stage, ...]:
    """Return what each span goes through, in this order."""
    return (
        shape.langfuse if settings.shape == "langfuse" else shape.openinference,
        redact(settings),
        brief,
        short_name,
        previewed,
        shorten(settings.max_value_bytes, settings.max_span_bytes),
    )


def fence(settings: Settings) -> Fence:
    """Return what takes secrets out of text: spans, log lines, comments on an answer."""
    return Fence(contacts=settings.redact_contacts, patterns=settings.redact_patterns)


def redact(settings: Settings) -> Redact:
    """Return the stage that takes out what is secret and what is not to leave."""
    return Redact(
        fence(settings),
        hide_inputs=settings.hide_inputs,
        hide_outputs=settings.hide_outputs,
        only_metadata=settings.content == "metadata-only",
        user_key=settings.user_hash_key.get_secret_value().encode() if settings.user_hash_key else b"",
    )


def prepare_all(spans: Sequence[ReadableSpan], stages: Sequence[Stage]) -> list[bytes]:
    """Return what `prepare` makes of each of these; they are searched for secrets together."""
    try:
        data = [otlp.from_sdk(span) for span in spans]
        for stage in stages:
            data = stage.all(data) if isinstance(stage, Redact) else [stage(each) for each in data]
        return [otlp.encode(each) for each in data]
    except Exception:  # noqa: BLE001 - whichever of them it was, each by itself it is found
        return [prepare(span, stages) for span in spans]


def prepare(span: ReadableSpan, stages: Sequence[Stage]) -> bytes:
    """Return the span as an export request of its own, after all the stages; never raises.

    Where a stage does, the span goes without its content, says so, and is counted.
    """
    try:
        data = otlp.from_sdk(span)
        for stage in stages:
            data = stage(data)
        return otlp.encode(data)
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing unredacted may leave
        failures.count("prepare a span", error)
        return otlp.encode(otlp.from_sdk(_stub(span, error)))


def _stub(span: ReadableSpan, error: Exception) -> ReadableSpan:
    known = span.resource.attributes
    reason = f"content withheld: preparing this span failed with {type(error).__name__}"
    return ReadableSpan(
        name=span.name if _HARMLESS_NAME.fullmatch(span.name) else "withheld",
        context=span.context,
        parent=span.parent,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        resource=Resource({key: known[key] for key in _HARMLESS_RESOURCE if key in known}),
        instrumentation_scope=span.instrumentation_scope,
        links=[Link(link.context) for link in span.links],
        attributes={
            STUB: True,
            "langfuse.observation.level": "WARNING",
            "langfuse.observation.status_message": reason,
        },
    )
