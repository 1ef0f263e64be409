"""What a variant of the benchmark is: something that starts, surrounds turns, and can be flushed."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

OURS: Mapping[str, Mapping[str, str]] = {
    "off": {"LANGFUSE_TRACING": "false"},
    "sampled_out": {"OTEL_TRACES_SAMPLER": "always_off"},
    "default": {},
    "recorder": {"TELEMETRY_LANGCHAIN": "recorder"},
}
"""Our variants, by what the environment says for them."""
WHOLE = "recorder_whole"
SETTINGS = {
    **OURS,
    WHOLE: {**OURS["recorder"], "TELEMETRY_MAX_VALUE_BYTES": "0", "TELEMETRY_MAX_SPAN_BYTES": "0"},
}
"""These, and the recorder without its budgets, which matters where much was said."""


@dataclass(frozen=True)
class Tracing:
    """What is done beside the workload."""

    flush: Callable[[], object] = lambda: None
    callbacks: list[Any] = field(default_factory=list)
    around: Callable[[str], AbstractContextManager[Any]] = lambda _: nullcontext()
    serve: Callable[[Any], object] = lambda _: None
    figures: Callable[[], dict[str, Any]] = dict


def start(variant: str, endpoint: str) -> Tracing:
    """Return the tracing of this variant, in force in this process and sending to the endpoint."""
    if variant == "untraced":
        return Tracing()
    module = "bench.ours" if variant in SETTINGS else f"bench.peers.{variant}"
    return import_module(module).start(endpoint)
