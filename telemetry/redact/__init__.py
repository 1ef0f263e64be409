"""The fence around what is secret: the same for spans, logs and what people write about an answer."""

from telemetry.redact.fence import Fence
from telemetry.redact.logs import LogFilter
from telemetry.redact.patterns import BadPatternError
from telemetry.redact.stage import Redact

__all__ = ["BadPatternError", "Fence", "LogFilter", "Redact"]
