"""What a program does, seen from outside, as text that two runs of it can be compared by."""

import gc
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage
from pydantic import BaseModel

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Note = Callable[..., None]
Program = Callable[[Note], Any]

# Threads of the pipeline itself, and of libraries that keep theirs for the next use.
_POOLS = ("telemetry-", "asyncio_", "ThreadPoolExecutor", "AnyIO", "OtelBatch", "MainThread")
# What a run makes up by itself, so that no two runs have the same.
_DRAWN = ("id", "run_id", "parent_ids", "checkpoint_id", "timestamp", "ts", "created", "task_id", "checkpoint_ns")


def run(program: Program) -> list[str]:
    """Return what the program notes, returns or raises, and what else has changed around it, a line each."""
    notes: list[str] = []

    def note(*values: Any) -> None:
        notes.append(" ".join(shown(value) for value in values))

    before = _around()
    records = _Records()
    logging.getLogger().addHandler(records)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            notes.append(f"returns {shown(program(note))}")
        except BaseException as error:  # noqa: BLE001 - whatever a program ends with is what is compared
            notes.append(f"raises {_error(error)}")
    logging.getLogger().removeHandler(records)
    notes += [f"logs {line}" for line in records.lines]
    notes += [f"warns {each.category.__name__}: {each.message}" for each in warned if "telemetry" not in each.filename]
    return notes + _changes(before)


def shown(value: Any, depth: int = 0) -> str:  # noqa: C901 - one case for each kind of value
    """Return a text of the value that is the same for equal values of the same kind; it consumes nothing."""
    kind = type(value).__name__
    if depth > 6 or isinstance(value, (threading.Thread, type)):
        return kind
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes() | bytearray():
            return f"{kind}:{value!r}"
        case UUID():
            return "UUID"
        case BaseException():
            return _error(value)
        case BaseMessage():
            said = {
                "content": value.content,
                "calls": getattr(value, "tool_calls", None),
                "extra": value.additional_kwargs,
            }
            return f"{kind}{shown(said, depth + 1)}"
        case BaseModel():
            return f"{kind}{shown(dict(value), depth + 1)}"
        case Mapping():
            parts = [
                f"{shown(key, depth + 1)}={shown(each, depth + 1)}" for key, each in value.items() if not _drawn(key)
            ]
            return f"{kind}{{{', '.join(parts)}}}"
        case set() | frozenset():
            return f"{kind}{sorted(shown(each, depth + 1) for each in value)}"
        case list() | tuple():
            return f"{kind}[{', '.join(shown(each, depth + 1) for each in value)}]"
    if is_dataclass(value):
        parts = [f"{each.name}={shown(getattr(value, each.name), depth + 1)}" for each in fields(value)]
        return f"{kind}({', '.join(part for part in parts if not part.startswith(_DRAWN))})"
    return kind


def _drawn(key: Any) -> bool:
    return isinstance(key, str) and key in _DRAWN


def _error(error: BaseException, depth: int = 0) -> str:
    if depth > 4:
        return "…"
    notes = _UUID.sub("ID", str(getattr(error, "__notes__", ())))
    inner = [(name, getattr(error, name)) for name in ("__cause__", "__context__")]
    parts = [type(error).__qualname__, shown(error.args, 3), shown(_own(error), 3), notes]
    return " ".join([*parts, *(f"{name} {_error(each, depth + 1)}" for name, each in inner if each)])


def _own(error: BaseException) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if name != "__notes__"}


class _Records(logging.Handler):
    """What a program's own handler sees of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, unless it is the pipeline's own."""
        if not record.name.startswith(("telemetry", "opentelemetry")):
            given = {name: value for name, value in vars(record).items() if name.startswith("own_")}
            stack = "" if not record.exc_info else traceback.format_exception_only(record.exc_info[1])[0].strip()
            self.lines.append(f"{record.name} {record.levelname} {record.getMessage()} {shown(given)} {stack}")


def _around() -> dict[str, Any]:
    return {
        "environment": dict(os.environ),
        "signals": {each.name: signal.getsignal(each) for each in signal.Signals if each.name in _SIGNALS},
        "loggers": {"root": logging.getLogger().level, "handlers": list(logging.getLogger().handlers)},
        "folder": Path.cwd(),
        "files": _files(),
        "threads": _threads(),
        "switches": (gc.isenabled(), gc.get_freeze_count(), sys.getswitchinterval()),
    }


_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGCHLD", "SIGPIPE")


def _changes(before: dict[str, Any]) -> list[str]:
    deadline = time.monotonic() + 5
    while (changed := _changed(before)) and time.monotonic() < deadline:
        gc.collect()  # what only garbage holds open is not held
        time.sleep(0.02)
    return changed


def _changed(before: dict[str, Any]) -> list[str]:
    after = _around()
    return [
        f"changes {name}: {before[name]} to {after[name]}" for name in before if _differs(before[name], after[name])
    ]


def _differs(before: Any, after: Any) -> bool:
    # Of threads and files those count that are left: one of an earlier program may end only now.
    return bool(Counter(after) - Counter(before)) if isinstance(before, list) else before != after


def _files() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
        try:
            place = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - what it points at need not be a path
        except OSError:
            continue
        if place.startswith("/") and not place.startswith(("/dev", "/proc", "/sys")) and "spool" not in place:
            found.append(place)
    return sorted(found)


def _threads() -> list[str]:
    return sorted(each.name for each in threading.enumerate() if not each.name.startswith(_POOLS))
