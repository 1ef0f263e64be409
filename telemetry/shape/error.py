"""Failures a person can read: one line, no local paths, the stack apart; no noise of what is no failure."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from telemetry.otlp import Attributes, Event, Span

# What LangGraph and asyncio raise to stop or to move on.
_INTERRUPTS = ("GraphInterrupt", "NodeInterrupt")
_NO_FAILURE = (*_INTERRUPTS, "ParentCommand", "GraphBubbleUp", "CancelledError")
_ROOTS = "home|Users|root|tmp|var|opt|usr|srv|mnt|private|etc|data|app"
_FILE = re.compile(r'File "([^"\n]+)"')
_INSTALLED = re.compile(r"(?:site-packages|dist-packages|lib/python3\.\d+)/")
_MARKS = re.compile(r"\n[ ^~]+(?=\n)")
_TRACEBACK = "Traceback (most recent call last)"
LONGEST_LINE = 500
LONGEST_STACK = 4_000
_STACK = "exception.stacktrace"
_LINES = ("exception.message", "langfuse.observation.status_message")


def readable(span: Span) -> Span:
    """Return the span with its failure in one line and the stack in an attribute of its own."""
    raised = [event for event in span.events if event.name == "exception"]
    kind = _kind(raised[-1]) if raised else ""
    if kind in _NO_FAILURE:
        interrupted = {"interrupted": True} if kind in _INTERRUPTS else {}
        status = "UNSET" if span.status == "ERROR" else span.status
        attributes = {**span.attributes, **interrupted}
        return span.but(attributes=attributes, events=_others(span), status=status, message="")
    if span.status != "ERROR":
        return span.but(events=[_without_paths(event) for event in span.events]) if raised else span
    line = _line(span, raised)
    about = _about(raised[-1], line) if raised else {}
    return span.but(attributes={**span.attributes, **about}, events=_others(span), message=line)


def brief(span: Span) -> Span:
    """Return the span with its failure as short as people read it.

    It is cut from what has been redacted already: half a secret is recognised by nobody.
    """
    if span.status != "ERROR":
        return span
    said = {key: value for key in (*_LINES, _STACK) if isinstance(value := span.attributes.get(key), str)}
    short = {key: text[-LONGEST_STACK:] if key == _STACK else text[:LONGEST_LINE] for key, text in said.items()}
    return span.but(attributes={**span.attributes, **short}, message=span.message[:LONGEST_LINE])


def without_paths(text: str) -> str:
    """Return text in which files of this machine have only their names."""
    return _local_path().sub(lambda found: f"{found[1]}…/{_last(found[2])}", text)


def _others(span: Span) -> list[Event]:
    return [event for event in span.events if event.name != "exception"]


def _without_paths(event: Event) -> Event:
    clean = {key: _stack(value) if isinstance(value, str) else value for key, value in event.attributes.items()}
    return replace(event, attributes=clean)


def _about(event: Event, line: str) -> Attributes:
    about = {"exception.type": event.attributes.get("exception.type"), "exception.message": line}
    if stack := event.attributes.get(_STACK):
        about[_STACK] = _stack(str(stack))
    return about


def _line(span: Span, raised: list[Event]) -> str:
    said = str(raised[-1].attributes.get("exception.message") or "") if raised else ""
    if not said:
        return _first_line(span.message)
    kind = _kind(raised[-1])
    line = _first_line(said)
    return line if line.startswith(kind) else f"{kind}: {line}"


def _first_line(text: str) -> str:
    lines = text[: 4 * LONGEST_LINE].split(_TRACEBACK)[0].strip().splitlines()
    return without_paths(lines[0].strip()) if lines else ""


def _kind(event: Event) -> str:
    return str(event.attributes.get("exception.type") or "").rpartition(".")[2]


def _stack(text: str) -> str:
    """The end of a stack is where it broke; marks below the lines only cost bytes."""
    end = _MARKS.sub("", text[-4 * LONGEST_STACK :])
    return without_paths(_FILE.sub(lambda found: f'File "{_module(found[1])}"', end))


def _module(path: str) -> str:
    path = path.replace("\\", "/")
    installed = _INSTALLED.split(path)
    return installed[-1] if len(installed) > 1 else "/".join(path.split("/")[-2:])


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


@cache
def _local_path() -> re.Pattern[str]:
    here = re.escape("/".join(Path.cwd().parts[1:2]) or "home")
    return re.compile(rf"""(^|[\s"'(\[=,:])(/(?:{_ROOTS}|{here})/[^\s"'()\[\],:;]+|[A-Za-z]:\\[^\s"']+)""")
