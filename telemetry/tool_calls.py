"""What each tool call records, whichever tool it is: how it went, how long it took, how much came out."""

from collections import Counter
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.messages import ToolMessage
from langchain_core.tracers.schemas import Run
from opentelemetry.util.types import AttributeValue

from telemetry.json_text import dump
from telemetry.turn import Turn

_failed: "WeakKeyDictionary[Turn[Any], Counter[str]]" = WeakKeyDictionary()


def measured(run: Run, turn: Turn[Any] | None) -> dict[str, AttributeValue]:
    """Return the attributes of a tool call that has ended; the turn learns of its failure.

    A retry is a call of a tool that has failed before in the same turn.
    """
    refused = _was_refused(run)
    success = run.error is None and not refused
    if refused and turn:
        turn.counts["tool_errors"] += 1
    known: dict[str, AttributeValue] = {
        "tool.success": success,
        "tool.retries": _retries(run.name, turn, success),
        **_size(run),
    }
    if run.end_time:
        known["tool.duration_ms"] = round((run.end_time - run.start_time).total_seconds() * 1000, 1)
    return known


def _was_refused(run: Run) -> bool:
    """A tool may turn its own failure into words, which LangChain counts as success."""
    answer = (run.outputs or {}).get("output")
    return isinstance(answer, ToolMessage) and answer.status == "error"


def _retries(name: str, turn: Turn[Any] | None, success: bool) -> int:
    if turn is None:
        return 0
    failed = _failed.setdefault(turn, Counter())
    before = failed[name]
    failed[name] += not success
    return before


def _size(run: Run) -> dict[str, AttributeValue]:
    if not run.outputs or "output" not in run.outputs:
        return {}
    answer = run.outputs["output"]
    body = dump(answer.content if isinstance(answer, ToolMessage) else answer).encode("utf-8", "replace")
    return {"tool.output_bytes": len(body), "output.sha256": sha256(body).hexdigest()}
