"""What each tool call records, whichever tool it is: how it went, how long it took, how much came out."""

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.messages import ToolMessage
from opentelemetry.util.types import AttributeValue

from telemetry.json_text import dump
from telemetry.turn import Turn

_failed: "WeakKeyDictionary[Turn[Any], Counter[str]]" = WeakKeyDictionary()


def measured(
    name: str,
    turn: Turn[Any] | None,
    *,
    failed: bool,
    outputs: Mapping[str, Any] | None,
    seconds: float | None,
) -> dict[str, AttributeValue]:
    """Return the attributes of a tool call that has ended; the turn learns of its failure.

    A retry is a call of a tool that has not gone well before in the same turn.
    """
    refused = _was_refused(outputs)
    # One that was cut off has neither failed nor answered.
    success = bool(outputs) and not (failed or refused)
    if refused and turn:
        turn.counts["tool_errors"] += 1
    known: dict[str, AttributeValue] = {
        "tool.success": success,
        "tool.retries": _retries(name, turn, success),
        **_size(outputs),
    }
    if seconds is not None:
        known["tool.duration_ms"] = round(seconds * 1000, 1)
    return known


def _was_refused(outputs: Mapping[str, Any] | None) -> bool:
    """A tool may turn its own failure into words, which LangChain counts as success."""
    answer = (outputs or {}).get("output")
    return isinstance(answer, ToolMessage) and answer.status == "error"


def _retries(name: str, turn: Turn[Any] | None, success: bool) -> int:
    if turn is None:
        return 0
    failed = _failed.setdefault(turn, Counter())
    before = failed[name]
    failed[name] += not success
    return before


def _size(outputs: Mapping[str, Any] | None) -> dict[str, AttributeValue]:
    if not outputs or "output" not in outputs:
        return {}
    answer = outputs["output"]
    body = dump(answer.content if isinstance(answer, ToolMessage) else answer).encode("utf-8", "replace")
    return {"tool.output_bytes": len(body), "output.sha256": sha256(body).hexdigest()}
