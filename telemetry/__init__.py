"""Tracing for agents: ordinary OpenTelemetry spans, complete and in one tree, sent to Langfuse over OTLP."""

import warnings

import telemetry.settings.otel_env  # noqa: F401 - imports the SDK, before anything else here does
from telemetry.backends.langfuse import backend, trace_url
from telemetry.configure import configure, flush, shutdown
from telemetry.context import Resumed, TraceRef, attach_trace, scope, traceparent, with_current_context
from telemetry.instrumentation.apps import instrument
from telemetry.instrumentation.langchain.decorators import traced_node, traced_tool
from telemetry.logs import guard_logs
from telemetry.otel.propagator import trust
from telemetry.prompts import Prompt, prompt
from telemetry.scores.api import get_client, score
from telemetry.scores.evaluator import FinishedTurn, evaluate
from telemetry.settings import SettingsError
from telemetry.span import capture_exception, current_trace, event, get_span, span, suppress_instrumentation
from telemetry.stats import stats
from telemetry.tail_sampling import keep_trace, restore_trace
from telemetry.task import Task, end_tasks
from telemetry.turn import Turn, cancel_turns, current_turn, drain

# Imported last: once its module is imported, a module of the same name is an attribute of this package.
from telemetry.manual_turn import turn  # isort: skip

__all__ = [
    "FinishedTurn",
    "Prompt",
    "Resumed",
    "SettingsError",
    "Task",
    "TraceRef",
    "Turn",
    "attach_trace",
    "backend",
    "cancel_turns",
    "capture_exception",
    "configure",
    "current_trace",
    "current_turn",
    "drain",
    "end_tasks",
    "evaluate",
    "event",
    "flush",
    "get_client",
    "get_span",
    "guard_logs",
    "instrument",
    "keep_trace",
    "prompt",
    "restore_trace",
    "scope",
    "score",
    "shutdown",
    "span",
    "stats",
    "suppress_instrumentation",
    "trace_url",
    "traced_node",
    "traced_tool",
    "traceparent",
    "trust",
    "turn",
    "with_current_context",
]

# Former names, which work for one more release.
_RENAMED = {
    "bring_back": "restore_trace",
    "carry": "with_current_context",
    "continued": "attach_trace",
    "decide": "keep_trace",
    "untraced": "suppress_instrumentation",
}


def __getattr__(name: str) -> object:
    if name not in _RENAMED:
        raise AttributeError(f"module 'telemetry' has no attribute {name!r}")
    warnings.warn(f"telemetry.{name} is now called telemetry.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
