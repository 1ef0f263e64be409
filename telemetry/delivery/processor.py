"""The processor that spans end in, and what becomes of it when the process forks."""

import os
from dataclasses import replace
from functools import cache, cached_property
from weakref import WeakSet

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from telemetry import wire
from telemetry.delivery.outbox import Outbox, Prepare
from telemetry.redact import Redact
from telemetry.settings import Settings


class SpoolProcessor(SpanProcessor):
    """Gives each sampled span that ends to the outbox of the process that it ends in."""

    def __init__(self, settings: Settings, prepare: Prepare, interval_s: float = 0.5) -> None:
        self._settings = settings
        self._prepare = prepare
        self._interval_s = interval_s
        self.outbox = Outbox(settings, prepare, interval_s)
        _register_at_fork()
        _processors.add(self)

    def on_end(self, span: ReadableSpan) -> None:
        """Enqueue it."""
        if span.context and span.context.trace_flags.sampled:
            self.outbox.put(span)

    @cached_property
    def fence(self) -> Redact:
        """What spans of other processes pass; made with the first of them, since most services take none."""
        return replace(wire.redact(self._settings), keeps_pseudonyms=True)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what is pending, and return whether the backend has it; at once where the backend is down."""
        return self.outbox.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Write what is pending, send what can be sent, and leave the rest to the next process."""
        self.outbox.close()

    def renew(self) -> None:
        """Begin anew, in a forked child: what was pending is the parent's."""
        self.outbox.spools.abandon()
        self.outbox = Outbox(self._settings, self._prepare, self._interval_s)


_processors: "WeakSet[SpoolProcessor]" = WeakSet()


@cache
def _register_at_fork() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lambda: [each.outbox.spools.before_fork() for each in _processors],
            after_in_parent=lambda: [each.outbox.spools.after_fork() for each in _processors],
            after_in_child=lambda: [each.renew() for each in _processors],
        )
