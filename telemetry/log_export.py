"""Send the log records of the process over OTLP, redacted, with the ids of their traces."""

import atexit
import copy
import logging
import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.trace import TracerProvider

from telemetry import pipeline
from telemetry.delivery.writer import SHUTDOWN_TIMEOUT_S
from telemetry.export.redact import LogFilter, Redactor
from telemetry.export.redact.logs import OWN
from telemetry.export.stages import build_redactor
from telemetry.genai_events import GenaiEvents
from telemetry.internal_errors import handle_internal_errors
from telemetry.provider import redacted_resource
from telemetry.settings import Settings, SettingsError, unusable

if TYPE_CHECKING:
    from telemetry.otel.logs_sdk import LogPipeline

WITHHELD = "[withheld]"
_SENT_AS_THEY_ARE = (str, bool, int, float)


class LogExport:
    """Sends each record that a logger handles; the program's own handlers get it as it was.

    It is no handler of the root logger: with one there, `logging.basicConfig` would set up nothing, and warnings of a
    program without handlers would not be printed.
    """

    def __init__(self, settings: Settings, redactor: Redactor, to: "LogPipeline") -> None:
        self._pipeline = to
        self._redact = LogFilter(redactor)
        self._only_metadata = settings.content == "metadata-only"
        self._handle = logging.Logger.callHandlers
        self._with_export = self._exporting(self._handle)

    def start(self) -> None:
        """Send the records of every logger."""
        logging.Logger.callHandlers = self._with_export

    def undo(self) -> None:
        """Stop, unless other code has replaced this method of loggers."""
        if logging.Logger.callHandlers is self._with_export:
            logging.Logger.callHandlers = self._handle

    def _exporting(self, handle: Callable[[logging.Logger, logging.LogRecord], None]) -> Callable[..., None]:
        @wraps(handle)
        def with_export(logger: logging.Logger, record: logging.LogRecord) -> None:
            self.export(record)
            handle(logger, record)

        return with_export

    def export(self, record: logging.LogRecord) -> None:
        """Redact a copy of the record, and enqueue it."""
        # What the exporter itself logs would be exported, and logged, for ever.
        if not is_instrumentation_enabled():
            return
        with handle_internal_errors("send a log record"):
            clean = copy.copy(record)
            self._redact.filter(clean)
            self._pipeline.emit(
                record.name,
                WITHHELD if self._only_metadata else clean.getMessage(),
                at_ns=round(record.created * 1e9),
                level=(record.levelno, record.levelname),
                attributes={**_about(record), **({} if self._only_metadata else _content(clean))},
            )

    def send(self, seconds: float) -> None:
        """Send what is left; return after this time at the latest."""
        # The exporter retries as long as its own timeout allows.
        thread = threading.Thread(target=self._pipeline.flush, args=(seconds,), name="telemetry-logs", daemon=True)
        thread.start()
        thread.join(seconds)


def start(settings: Settings, provider: TracerProvider) -> LogExport:
    """Send the log records of this process, with the resource of the spans; return what sends them.

    Raises `SettingsError` for settings that cannot be used.
    """
    redactor = build_redactor(settings)
    try:
        # Imported here, so that a process that sends no logs does not import their SDK.
        from telemetry.otel.logs_sdk import LogPipeline

        sender = LogPipeline(settings.logs_endpoint, redacted_resource(provider, redactor))
    except ImportError:
        raise SettingsError("OTEL_LOGS_EXPORTER needs a newer opentelemetry-sdk: install one, or remove it.") from None
    except (OSError, ValueError) as error:
        raise unusable("OTEL_EXPORTER_OTLP_LOGS_*", error, "correct these variables, or remove them") from None
    export = LogExport(settings, redactor, sender)
    export.start()
    if settings.genai_events:
        provider.add_span_processor(pipeline.put(GenaiEvents(settings, sender)))
    atexit.register(partial(export.send, SHUTDOWN_TIMEOUT_S))
    return export


def flush(seconds: float) -> None:
    """Send the log records so far, if they are sent at all."""
    if export := pipeline.get(LogExport):
        export.send(seconds)


def _about(record: logging.LogRecord) -> dict[str, Any]:
    kind = record.exc_info[0] if record.exc_info else None
    return {
        "code.function.name": record.funcName,
        "code.line.number": record.lineno,
        **({"exception.type": kind.__qualname__} if kind else {}),
    }


def _content(record: logging.LogRecord) -> dict[str, Any]:
    extra = {
        name: value
        for name, value in record.__dict__.items()
        if name not in OWN and isinstance(value, _SENT_AS_THEY_ARE)
    }
    return {**extra, **({"exception.stacktrace": record.exc_text} if record.exc_text else {})}
