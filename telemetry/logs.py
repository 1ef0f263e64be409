"""Add trace ids to log records, and redact secrets in them."""

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from telemetry.export.redact import LogFilter
from telemetry.export.stages import build_redactor
from telemetry.settings import load_settings

_IDS = ("otelTraceID", "otelSpanID", "otelTraceSampled")


class Correlated:
    """A factory of log records with the ids of the current span, under OpenTelemetry's names.

    If a log call sets one of these names in `extra`, its own value is kept.
    """

    def __init__(self) -> None:
        self._make = logging.getLogRecordFactory()
        self._make_record = logging.Logger.makeRecord
        self._with_own_ids = _keeping_own_ids(self._make_record)

    def start(self) -> None:
        """Use this factory for every log record of the process."""
        logging.setLogRecordFactory(self)
        logging.Logger.makeRecord = self._with_own_ids

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Return the record; `0` stands for no trace."""
        record = self._make(*args, **kwargs)
        current = get_current_span().get_span_context()
        record.otelTraceID = format_trace_id(current.trace_id) if current.is_valid else "0"
        record.otelSpanID = format_span_id(current.span_id) if current.is_valid else "0"
        record.otelTraceSampled = current.trace_flags.sampled
        return record

    def undo(self) -> None:
        """Restore the previous factory, unless other code has replaced this one."""
        if logging.getLogRecordFactory() is self:
            logging.setLogRecordFactory(self._make)
        if logging.Logger.makeRecord is self._with_own_ids:
            logging.Logger.makeRecord = self._make_record


def correlate() -> Correlated:
    """Give every log record of the process the ids of its trace."""
    correlated = Correlated()
    correlated.start()
    return correlated


def _keeping_own_ids(make_record: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    # A logger rejects an `extra` with a name that the record has already.
    @wraps(make_record)
    def with_own_ids(
        self: logging.Logger,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        own = {key: extra[key] for key in _IDS if key in extra} if extra else {}
        if extra and own:
            extra = {key: extra[key] for key in extra if key not in own}
        record = make_record(self, name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
        record.__dict__.update(own)
        return record

    return with_own_ids


def guard_logs() -> None:
    """Redact what the current handlers of the root logger write, as spans are redacted.

    Call it after the handlers are set up. Raises `SettingsError` for invalid settings.

    Example:
        >>> import telemetry
        >>> telemetry.guard_logs()
    """
    log_filter = LogFilter(build_redactor(load_settings()))
    for handler in logging.getLogger().handlers:
        handler.addFilter(log_filter)
