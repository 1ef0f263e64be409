"""The program's own Langfuse SDK beside ours: its spans and ours are one tree, and each is sent once.

The SDK puts a span processor of its own into the global provider, before or after `configure`. Where both would send to
the same project, its processor goes on marking spans as they start (propagated attributes, the root of the app), and
sending is left to the spool. Where our spans go elsewhere, or the program masks the SDK's spans as they are sent, the
SDK sends what it would send without us.

The SDK is not imported here: its processor is recognised by the module that it comes from, so that a program without
the SDK needs none.
"""

import logging
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags

from telemetry.otel.request_filter import RequestFilter
from telemetry.otel.sdk_internals import sdk_provider
from telemetry.settings import LANGFUSE_TRACES, Settings

logger = logging.getLogger(__name__)

_MODULE = "langfuse._client.span_processor"
# Who makes spans because of us; the SDK would send those of LangChain, which its own handler tells of.
_OUR_SCOPES = ("telemetry", "openinference.instrumentation.langchain")


class Withholding(SpanProcessor):
    """The SDK's processor without sending some spans: it sees them start, and end as spans that are not sampled.

    It keeps a note of each open span, which it lets go of when the span ends.
    """

    def __init__(self, processor: SpanProcessor, is_withheld: Callable[[ReadableSpan], bool]) -> None:
        self._processor = processor
        self._is_withheld = is_withheld

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Have the span marked."""
        self._processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Have the span sent, or only forgotten."""
        withheld = span.context and self._is_withheld(span)
        self._processor.on_end(_unsampled(span, span.context) if span.context and withheld else span)

    def shutdown(self) -> None:
        """End its threads."""
        self._processor.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have sent what it holds."""
        return self._processor.force_flush(timeout_millis)


def sends_to_langfuse(settings: Settings) -> bool:
    """Return whether our spans go to the project whose keys the program's own Langfuse SDK finds as well."""
    return bool(settings.langfuse_url) and settings.endpoint == settings.langfuse_url + LANGFUSE_TRACES


def send_sdk_spans_once(provider: TracerProvider, settings: Settings, requests: RequestFilter) -> None:
    """Keep the SDK's processor, now or later on this provider, and the spool from sending the same spans.

    `requests` passes spans on to the spool.
    """
    add = provider.add_span_processor

    def add_span_processor(span_processor: SpanProcessor) -> None:
        add(_shared(settings, requests, span_processor))

    # An attribute of this provider alone: one that somebody else has made has a class of its own.
    provider.add_span_processor = add_span_processor
    # Private, and the only way to what was added before: without it each span of the SDK is sent twice.
    composite: Any = getattr(sdk_provider(provider), "_active_span_processor", None)
    present = getattr(composite, "_span_processors", ())
    if any(map(_is_sdk, present)):
        composite._span_processors = tuple(_shared(settings, requests, each) for each in present)  # noqa: SLF001 - see above


def _shared(settings: Settings, requests: RequestFilter, processor: SpanProcessor) -> SpanProcessor:
    if not _is_sdk(processor):
        return processor
    if not sends_to_langfuse(settings) or getattr(processor, "public_key", None) != settings.public_key:
        return Withholding(processor, _is_ours)
    if not _has_mask(processor):
        return Withholding(processor, lambda _: True)
    # What the program masks, it masks where the SDK sends it.
    is_sent: Callable[[ReadableSpan], bool] = getattr(processor, "_should_export_span", lambda _: True)
    requests.leave_out(lambda span: not _is_ours(span) and is_sent(span))
    return Withholding(processor, _is_ours)


def _has_mask(processor: SpanProcessor) -> bool:
    exporter = getattr(getattr(processor, "_batch_processor", None), "_exporter", None)
    return getattr(exporter, "_mask_otel_spans", None) is not None


def _is_sdk(processor: SpanProcessor) -> bool:
    return any(kind.__module__ == _MODULE for kind in type(processor).__mro__)


def _is_ours(span: ReadableSpan) -> bool:
    return bool(span.instrumentation_scope) and span.instrumentation_scope.name.startswith(_OUR_SCOPES)


def _unsampled(span: ReadableSpan, context: SpanContext) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        context=SpanContext(context.trace_id, context.span_id, is_remote=False, trace_flags=TraceFlags.get_default()),
        parent=span.parent,
        attributes=span.attributes,
        instrumentation_scope=span.instrumentation_scope,
    )
