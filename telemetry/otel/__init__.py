"""Plug-ins for the OpenTelemetry SDK."""
