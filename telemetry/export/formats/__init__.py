"""Convert spans to the format that a backend shows best."""

from telemetry.export.formats.combined import CombinedFormat
from telemetry.export.formats.langfuse import langfuse
from telemetry.export.formats.openinference import openinference
from telemetry.export.formats.otel_genai import GenaiFormat, name_by_conventions

__all__ = ["CombinedFormat", "GenaiFormat", "langfuse", "name_by_conventions", "openinference"]
