"""Helpers for tests of traced code: spans in memory, span trees as text, a receiver on loopback."""

from telemetry.testing.receiver import Receiver
from telemetry.testing.recorded import Recorded, recording
from telemetry.testing.tree import span_tree

__all__ = ["Receiver", "Recorded", "recording", "span_tree"]
