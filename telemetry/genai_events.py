"""Send the events of OpenTelemetry's GenAI conventions: the details of each call of a model, its error, each score."""

import logging
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags

from telemetry import internal_errors
from telemetry.export.formats import GenaiFormat
from telemetry.export.formats.error import summarize_error
from telemetry.export.formats.genai import KIND
from telemetry.export.formats.marks import SAME_CALL_BELOW
from telemetry.export.formats.otel_genai import OPERATION
from telemetry.export.stages import build_redact_stage, run_stages
from telemetry.export.truncate import build_truncate_stage
from telemetry.internal_errors import handle_internal_errors
from telemetry.json_text import parse
from telemetry.settings import Settings

if TYPE_CHECKING:
    from telemetry.otel.logs_sdk import LogPipeline

DETAILS = "gen_ai.client.inference.operation.details"
EXCEPTION = "gen_ai.client.operation.exception"
EVALUATION = "gen_ai.evaluation.result"
_SCOPE = "telemetry"
_CALLS = ("chat", "generate_content", "text_completion")
_SENT: tuple[str, ...] = ("gen_ai.", "error.type", "server.")
_SENT_OF_EXCEPTION = ("exception.",)
# Written as JSON on spans, because many backends take no nested values there; events have them as they are.
_STRUCTURED = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
)


class GenaiEvents(SpanProcessor):
    """Sends an event for each span of a call of a model, for its error and for each score, through the spans' stages.

    A span is converted and redacted in the thread that sends the events, not in the program's.
    """

    def __init__(self, settings: Settings, to: "LogPipeline") -> None:
        self._pipeline = to
        self._stages = (
            GenaiFormat(settings.max_value_bytes),
            build_redact_stage(settings.model_copy(update={"media": False})),
            summarize_error,
            build_truncate_stage(settings.max_value_bytes, settings.max_span_bytes),
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Enqueue the events of a call of a model, if its span is sampled."""
        with handle_internal_errors("send an event"):
            if not (span.context and span.context.trace_flags.sampled and _is_call(span.attributes or {})):
                return
            events = [(DETAILS, logging.DEBUG, _SENT)]
            if span.status.status_code is StatusCode.ERROR:
                events.append((EXCEPTION, logging.WARNING, _SENT_OF_EXCEPTION))
            for name, level, sent in events:
                build = partial(self._build, span, sent)
                self._pipeline.emit_event(_SCOPE, name, at_ns=span.end_time, of=span.context, level=level, build=build)

    def record_score(
        self,
        name: str,
        value: bool | float | str,
        *,
        at: datetime,
        trace_id: str,
        span_id: str | None = None,
        comment: str | None = None,
    ) -> None:
        """Enqueue the event of a score, whose texts are redacted already, on a trace or one of its spans."""
        is_label = isinstance(value, str)
        found = {
            "gen_ai.evaluation.name": name,
            "gen_ai.evaluation.score.label": value if is_label else None,
            "gen_ai.evaluation.score.value": None if is_label else float(value),
            "gen_ai.evaluation.explanation": comment,
        }
        attributes = {key: value for key, value in found.items() if value is not None}
        of = SpanContext(int(trace_id, 16), int(span_id or "0", 16), True, TraceFlags(TraceFlags.SAMPLED))
        with handle_internal_errors("send an event"):
            at_ns = round(at.timestamp() * 1e9)
            self._pipeline.emit_event(_SCOPE, EVALUATION, at_ns=at_ns, of=of, build=lambda: attributes)

    def _build(self, span: ReadableSpan, sent: tuple[str, ...]) -> Mapping[str, Any] | None:
        """Return those of a span's attributes that an event has; None if there are none without their secrets."""
        try:
            data = run_stages(span, self._stages)
        except Exception as error:  # noqa: BLE001 - whatever fails, nothing unredacted may be sent
            internal_errors.record("prepare an event", error)
            return None
        found = {
            key: (parse(value) or value) if key in _STRUCTURED else value
            for key, value in data.attributes.items()
            if key.startswith(sent)
        }
        return found or None


def _is_call(attributes: Mapping[str, Any]) -> bool:
    """Return whether a span is a call of a model, and not one that the span below has as well."""
    is_call = attributes.get(KIND) == "LLM" or attributes.get(OPERATION) in _CALLS
    return is_call and SAME_CALL_BELOW not in attributes
