"""The local backend: OTLP and scores on Langfuse's own paths, kept in SQLite, shown as pages."""

from telemetry.viewer.app import create_app
from telemetry.viewer.settings import Settings

__all__ = ["Settings", "create_app"]
