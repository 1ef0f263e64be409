"""Drop spans that nobody needs: of successful requests to chosen paths, and those that somebody else sends."""

import re
from collections.abc import Callable, Iterable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode


class RequestFilter(SpanProcessor):
    """Pass spans on to the next processor, except those of successful requests to chosen paths.

    Of a request it only drops its own span: one whose parent is not in this process.
    """

    def __init__(self, next_processor: SpanProcessor) -> None:
        self._next = next_processor
        self._paths: set[re.Pattern[str]] = set()
        self._left_out: list[Callable[[ReadableSpan], bool]] = []

    def trace_only_failures(self, paths: Iterable[str]) -> None:
        """Drop the spans of successful requests whose whole path matches one of these expressions."""
        self._paths.update(re.compile(path) for path in paths)

    def leave_out(self, is_left_out: Callable[[ReadableSpan], bool]) -> None:
        """Drop the spans of which this is true as well."""
        self._left_out.append(is_left_out)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Pass it on."""
        self._next.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Pass the span on, unless it is left out or that of a successful request to one of the paths."""
        if not self._is_dropped(span) and not any(is_left_out(span) for is_left_out in self._left_out):
            self._next.on_end(span)

    def shutdown(self) -> None:
        """Pass it on."""
        self._next.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Pass it on."""
        return self._next.force_flush(timeout_millis)

    def _is_dropped(self, span: ReadableSpan) -> bool:
        if span.kind is not SpanKind.SERVER or (span.parent and not span.parent.is_remote):
            return False
        path = str((span.attributes or {}).get("url.path", ""))
        return span.status.status_code is not StatusCode.ERROR and any(p.fullmatch(path) for p in self._paths)
