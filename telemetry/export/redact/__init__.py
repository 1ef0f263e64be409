"""Redact spans, log records and scores."""

from telemetry.export.redact.logs import LogFilter
from telemetry.export.redact.patterns import BadPatternError
from telemetry.export.redact.redactor import Redactor
from telemetry.export.redact.stage import SpanRedactor

__all__ = ["BadPatternError", "LogFilter", "Redactor", "SpanRedactor"]
