"""Tracing for agents: ordinary OpenTelemetry spans, complete and in one tree, on their way to Langfuse over OTLP."""

import telemetry.sdk_variables  # noqa: F401 - imports the SDK, before anything else here does
from telemetry.application import instrument
from telemetry.context import Resumed, TraceRef, carry, continued, scope, traceparent
from telemetry.keep import bring_back, decide
from telemetry.langchain.traced import traced_node, traced_tool
from telemetry.langfuse import backend, trace_url
from telemetry.logs import guard_logs
from telemetry.propagator import trust
from telemetry.provider import configure, shutdown
from telemetry.scores.client import get_client, score
from telemetry.scores.evaluator import FinishedTurn, evaluate
from telemetry.settings import SettingsError
from telemetry.span import capture_exception, current_trace, event, get_span, span, untraced
from telemetry.stats import stats
from telemetry.task import Task, end_tasks
from telemetry.turn import Turn, cancel_turns, current_turn, drain

__all__ = [
    "FinishedTurn",
    "Resumed",
    "SettingsError",
    "Task",
    "TraceRef",
    "Turn",
    "backend",
    "bring_back",
    "cancel_turns",
    "capture_exception",
    "carry",
    "configure",
    "continued",
    "current_trace",
    "current_turn",
    "decide",
    "drain",
    "end_tasks",
    "evaluate",
    "event",
    "get_client",
    "get_span",
    "guard_logs",
    "instrument",
    "scope",
    "score",
    "shutdown",
    "span",
    "stats",
    "trace_url",
    "traced_node",
    "traced_tool",
    "traceparent",
    "trust",
    "untraced",
]
