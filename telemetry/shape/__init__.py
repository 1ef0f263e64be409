"""What a backend shows well, from what OpenInference and the instrumentors give."""

from telemetry.shape.langfuse import langfuse
from telemetry.shape.openinference import openinference

__all__ = ["langfuse", "openinference"]
