"""Convert spans to the format that a backend shows best."""

from telemetry.export.formats.langfuse import langfuse
from telemetry.export.formats.openinference import openinference

__all__ = ["langfuse", "openinference"]
