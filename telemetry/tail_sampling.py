"""Tail sampling: decide at the end of a turn whether its trace is kept. The process that started the trace follows."""

from telemetry import pipeline
from telemetry.delivery.writer import SpanWriter, SpoolProcessor


def decides_at_end() -> bool:
    """Return whether this process holds spans until the decision about their trace."""
    writer = _writer()
    return writer is not None and writer.settings.keep_rate is not None


def keep_trace(trace_id: str, kept: bool | None = None) -> bool:
    """Decide whether this trace is kept, and return the decision once it is on disk.

    Args:
        trace_id: 32 lower-case hexadecimal digits.
        kept: an earlier decision; True restores a dropped trace within `TELEMETRY_HOLD_S`. None applies the rule: keep
            the share `TELEMETRY_KEEP_RATE` of ordinary traces.

    An error on any of its spans here always keeps a trace. Without tail sampling it returns True. It waits for the
    disk: call it in a thread, not on the event loop.

    Example:
        >>> import telemetry
        >>> telemetry.keep_trace("0af7651916cd43dd8448eb211c80319c", kept=True)
        True
    """
    writer = _writer()
    return writer.keep_trace(trace_id, kept) if writer else True


def restore_trace(trace_id: str) -> bool:
    """Keep a dropped trace, and return whether any of its spans were left; after `TELEMETRY_HOLD_S` there are none.

    Each process restores its own spans of the trace. It waits for the disk: call it in a thread, not on the event loop.

    Example:
        >>> import telemetry
        >>> telemetry.restore_trace("0af7651916cd43dd8448eb211c80319c")
        False
    """
    writer = _writer()
    return writer is not None and writer.restore_trace(trace_id)


def is_slow(seconds: float) -> bool:
    """Return whether a turn of this duration is kept because it is slow."""
    writer = _writer()
    return writer is not None and seconds >= writer.settings.slow_s


def _writer() -> SpanWriter | None:
    processor = pipeline.get(SpoolProcessor)
    return processor.writer if processor else None
