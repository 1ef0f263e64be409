"""Requests that make no trace unless they fail: health checks, lists, polling."""

import re
from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode


class Quiet(SpanProcessor):
    """Passes spans on, save those of a quiet request that ended well.

    Only a request's own span is judged: one whose parent is not in this process.
    """

    def __init__(self, then: SpanProcessor) -> None:
        self._then = then
        self._paths: set[re.Pattern[str]] = set()

    def hush(self, paths: Iterable[str]) -> None:
        """Make requests quiet whose whole path one of these expressions matches."""
        self._paths.update(re.compile(path) for path in paths)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Pass it on."""
        self._then.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Pass it on, unless it is a quiet request's and ended well."""
        if not self._is_quiet(span):
            self._then.on_end(span)

    def shutdown(self) -> None:
        """Pass it on."""
        self._then.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Pass it on."""
        return self._then.force_flush(timeout_millis)

    def _is_quiet(self, span: ReadableSpan) -> bool:
        if span.kind is not SpanKind.SERVER or (span.parent and not span.parent.is_remote):
            return False
        path = str((span.attributes or {}).get("url.path", ""))
        return span.status.status_code is not StatusCode.ERROR and any(p.fullmatch(path) for p in self._paths)
