"""The settings of tracing, read from the environment once and validated before anything starts."""

import telemetry.settings.otel_env  # noqa: F401 - imports the SDK, before the redaction of the settings does
from telemetry.settings.model import LANGFUSE_TRACES, Settings, load_settings
from telemetry.settings.refusals import SettingsError, refuse_nonsense, sentence, unusable, variables

__all__ = [
    "LANGFUSE_TRACES",
    "Settings",
    "SettingsError",
    "load_settings",
    "refuse_nonsense",
    "sentence",
    "unusable",
    "variables",
]
