"""The attributes of every tool call: outcome, duration, size of the result."""

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.messages import ToolMessage
from opentelemetry.util.types import AttributeValue

from telemetry import pipeline
from telemetry.plain_data import is_a, safe_text
from telemetry.turn import Turn


class _FailedCalls(WeakKeyDictionary[Turn[Any], Counter[str]]):
    """How often each tool has failed in a turn."""


def tool_call_attributes(
    name: str,
    turn: Turn[Any] | None,
    *,
    failed: bool,
    outputs: Mapping[str, Any] | None,
    seconds: float | None,
) -> dict[str, AttributeValue]:
    """Return the attributes of a finished tool call, and count its failure for the turn.

    A retry is a call of a tool that has failed before in the same turn.
    """
    reports_error = _reports_error(outputs)
    # A call that was cut off has neither failed nor returned.
    success = bool(outputs) and not (failed or reports_error)
    if reports_error and turn:
        turn.counts["tool_errors"] += 1
    attributes: dict[str, AttributeValue] = {
        "tool.success": success,
        "tool.retries": _retries(name, turn, success),
        **_size(outputs),
    }
    if seconds is not None:
        attributes["tool.duration_ms"] = round(seconds * 1000, 1)
    return attributes


def _reports_error(outputs: Mapping[str, Any] | None) -> bool:
    """Return whether a tool has returned its failure as text, which LangChain counts as success."""
    answer = (outputs or {}).get("output")
    return is_a(answer, ToolMessage) and answer.status == "error"  # pyright: ignore[reportOptionalMemberAccess] - asked


def _retries(name: str, turn: Turn[Any] | None, success: bool) -> int:
    if turn is None:
        return 0
    failed = pipeline.shared(_FailedCalls).setdefault(turn, Counter())
    before = failed[name]
    failed[name] += not success
    return before


def _size(outputs: Mapping[str, Any] | None) -> dict[str, AttributeValue]:
    if not outputs or "output" not in outputs:
        return {}
    answer = outputs["output"]
    body = safe_text(answer.content if is_a(answer, ToolMessage) else answer).encode("utf-8", "replace")
    return {"tool.output_bytes": len(body), "output.sha256": sha256(body).hexdigest()}
