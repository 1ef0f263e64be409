"""Prepare finished spans for export: a list of functions, each from a span to a span."""

import re
from collections.abc import Callable, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, Status

from telemetry import internal_errors
from telemetry.export import formats, otlp
from telemetry.export.formats.error import summarize_error
from telemetry.export.formats.langfuse import add_preview, draw_files
from telemetry.export.formats.openinference import name_http_call
from telemetry.export.otlp import RedactedSpan, Span
from telemetry.export.redact import Redactor, SpanRedactor
from telemetry.export.truncate import build_truncate_stage
from telemetry.settings import Settings

Stage = Callable[[Span], Span]

# A name of plain words contains no secret.
_HARMLESS_NAME = re.compile(r"[A-Za-z_ ]{1,40}")
_HARMLESS_RESOURCE = ("service.name", "service.version", "deployment.environment.name", "langfuse.release")
STUB = "telemetry.withheld"


def build_stages(settings: Settings) -> tuple[Stage, ...]:
    """Return the stages of the export, in their order."""
    return (
        _build_format(settings),
        build_redact_stage(settings),
        *([draw_files] if settings.sends_media else []),
        summarize_error,
        name_http_call,
        *([formats.name_by_conventions] if settings.genai_names else []),
        *([] if settings.shape == "genai" else [add_preview]),
        build_truncate_stage(settings.max_value_bytes, settings.max_span_bytes),
    )


def _build_format(settings: Settings) -> Stage:
    match settings.shape:
        case "langfuse":
            return formats.langfuse
        case "openinference":
            return formats.openinference
        case "genai":
            return formats.GenaiFormat(settings.max_value_bytes)
        case "all":
            return formats.CombinedFormat(settings.max_value_bytes)


def build_redactor(settings: Settings) -> Redactor:
    """Return the redactor for the text of spans, log lines and scores."""
    return Redactor(contacts=settings.redact_contacts, patterns=settings.redact_patterns)


def build_redact_stage(settings: Settings) -> SpanRedactor:
    """Return the stage that redacts secrets, and content that must not be sent."""
    return SpanRedactor(
        build_redactor(settings),
        hide_inputs=settings.hide_inputs,
        hide_outputs=settings.hide_outputs,
        only_metadata=settings.content == "metadata-only",
        user_key=settings.user_hash_key.get_secret_value().encode() if settings.user_hash_key else b"",
        sends_media=settings.sends_media,
    )


def stage_name(stage: Stage) -> str:
    """Return the name of a stage, for tables."""
    return "redact" if isinstance(stage, SpanRedactor) else getattr(stage, "__name__", type(stage).__name__)


def prepare_all(spans: Sequence[ReadableSpan], stages: Sequence[Stage]) -> list[bytes]:
    """Return the result of `prepare` for each span; one pass searches all of them for secrets."""
    try:
        data: Sequence[Span] = [otlp.from_sdk(span) for span in spans]
        for stage in stages:
            data = stage.redact_all(data) if isinstance(stage, SpanRedactor) else [stage(each) for each in data]
        return [_encode(each) for each in data]
    except Exception:  # noqa: BLE001 - one of them failed: prepare each alone, so that the others are sent complete
        return [prepare(span, stages) for span in spans]


def prepare(span: ReadableSpan, stages: Sequence[Stage]) -> bytes:
    """Return the span as a separate export request, after all stages; never raise.

    If a stage fails, or none of them redacts, the span is sent without its content and with the reason, and is counted.
    """
    try:
        return _encode(run_stages(span, stages))
    except Exception as error:  # noqa: BLE001 - whatever fails, nothing unredacted may be sent
        internal_errors.record("prepare a span", error)
        return otlp.encode(_stub(span, error, stages))


def run_stages(span: ReadableSpan, stages: Sequence[Stage]) -> RedactedSpan:
    """Return the span after all stages; raise what a stage raises, and `TypeError` if none of them redacts."""
    data: Span = otlp.from_sdk(span)
    for stage in stages:
        data = stage(data)
    return _redacted(data)


def _redacted(span: Span) -> RedactedSpan:
    if not isinstance(span, RedactedSpan):
        raise TypeError("no stage has redacted this span")
    return span


def _encode(span: Span) -> bytes:
    clean = _redacted(span)
    body = otlp.encode(clean)
    return otlp.EncodedSpan(body, clean.attachments) if clean.attachments else body


def _stub(span: ReadableSpan, error: Exception, stages: Sequence[Stage]) -> RedactedSpan:
    known = span.resource.attributes
    reason = f"content withheld: preparing this span failed with {type(error).__name__}"
    stub = otlp.from_sdk(
        ReadableSpan(
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
    )
    try:
        (redact,) = [stage for stage in stages if isinstance(stage, SpanRedactor)]
        return redact(stub)
    except Exception:  # noqa: BLE001 - the redact stage fails or is missing: remove every text
        bare = {"name": "withheld", "trace_state": "", "scope": "", "scope_version": "", "scope_attributes": {}}
        return RedactedSpan.of(stub, **bare, resource={})
