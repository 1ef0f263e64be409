"""Make errors readable: one line, no local paths, the stack in a separate attribute."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from telemetry.export.otlp import Event, Span

# What LangGraph and asyncio raise to stop or to continue elsewhere.
_INTERRUPTS = ("GraphInterrupt", "NodeInterrupt")
_NO_FAILURE = (*_INTERRUPTS, "ParentCommand", "GraphBubbleUp", "CancelledError")
_ROOTS = "home|Users|root|tmp|var|opt|usr|srv|mnt|private|etc|data|app"
_FILE = re.compile(r'File "([^"\n]+)"')
_INSTALLED = re.compile(r"(?:site-packages|dist-packages|lib/python3\.\d+)/")
_SLASHES = "/\\"
_SLASH = re.compile(r"[/\\]")
_MARKS = re.compile(r"\n[ ^~]+(?=\n)")
_TRACEBACK = "Traceback (most recent call last)"
# As a span says it that fails with one below it, which has the stack. Any other word before a colon stays with what
# follows, which may be a secret by that name.
_ERROR_LINE = re.compile(
    r"((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Warning|Timeout|Exit|Interrupt))(?::(?: (.*))?)?$", re.MULTILINE
)
MAX_LINE = 500
MAX_STACK = 4_000
_STACK = "exception.stacktrace"
_LINES = ("exception.message", "langfuse.observation.status_message")


def make_error_readable(span: Span) -> Span:
    """Return the span with its error as its message, and the stack in a separate attribute."""
    exceptions = [event for event in span.events if event.name == "exception"]
    others = [event for event in span.events if event.name != "exception"]
    kind = _class_name(exceptions[-1]) if exceptions else ""
    if kind in _NO_FAILURE:
        interrupted = {"interrupted": True} if kind in _INTERRUPTS else {}
        status = "UNSET" if span.status == "ERROR" else span.status
        return span.but(attributes={**span.attributes, **interrupted}, events=others, status=status, message="")
    if span.status != "ERROR":
        return span.but(events=[_without_paths(event) for event in span.events]) if exceptions else span
    if not exceptions:
        return span.but(events=others, message=_without_stack(span.message) or _http_line(span))
    given = exceptions[-1].attributes
    text = str(given.get("exception.message") or "")
    message = _without_stack(text or span.message)
    if text and not message.startswith(kind):
        message = f"{kind}: {message}"
    error = {"exception.type": given.get("exception.type"), "exception.message": message}
    if stack := given.get(_STACK):
        error[_STACK] = _readable_stack(str(stack))
    return span.but(attributes={**span.attributes, **error}, events=others, message=message)


def summarize_error(span: Span) -> Span:
    """Return the span with its error in one line, and the end of the stack.

    It runs after redaction, because a truncated secret is not recognised.
    """
    if span.status != "ERROR":
        return span
    line = next(iter(span.message.splitlines()), "").rstrip()[:MAX_LINE]
    texts = {key: value for key in (*_LINES, _STACK) if isinstance(value := span.attributes.get(key), str)}
    short = {
        key: text[-MAX_STACK:] if key == _STACK else line if text == span.message else text[:MAX_LINE]
        for key, text in texts.items()
    }
    return span.but(attributes={**span.attributes, **short}, message=line)


def remove_paths(text: str) -> str:
    """Return the text with paths of this machine reduced to file names."""
    return _local_path().sub(lambda found: f"{found[1]}…/{_SLASH.split(found[2].rstrip(_SLASHES))[-1]}", text)


def exception_type(span: Span) -> str | None:
    """Return the class of a readable span's error, also where it only says so; None where nothing does."""
    known = span.attributes.get("exception.type")
    return str(known) if known else class_said(span.message)


def class_said(message: str) -> str | None:
    """Return the class of an error that a status begins with; None where it begins with none.

    Example:
        >>> class_said("httpx.ReadTimeout: no answer")
        'httpx.ReadTimeout'
    """
    said = _ERROR_LINE.match(message)
    return said[1] if said else None


def exception_events(span: Span) -> list[Event]:
    """Return the span's exception events, without paths of this machine; for one that only says so, what it says."""
    found = [_without_paths(event) for event in span.events if event.name == "exception"]
    said = None if found else _ERROR_LINE.match(span.message)
    if not said:
        return found
    attributes = {"exception.type": said[1], "exception.message": remove_paths(said[2] or "")}
    return [Event("exception", span.end, attributes)]


def _without_paths(event: Event) -> Event:
    clean = {
        key: _readable_stack(value) if isinstance(value, str) else value for key, value in event.attributes.items()
    }
    return replace(event, attributes=clean)


def _without_stack(text: str) -> str:
    return remove_paths(text.split(_TRACEBACK)[0].strip())


def _http_line(span: Span) -> str:
    status = span.attributes.get("http.response.status_code") or span.attributes.get("error.type")
    return f"HTTP {status}" if status else ""


def _class_name(event: Event) -> str:
    return str(event.attributes.get("exception.type") or "").rpartition(".")[2]


def _readable_stack(text: str) -> str:
    """Return a stack without the markers below its lines and without paths of this machine."""
    return remove_paths(_FILE.sub(lambda found: f'File "{_module(found[1])}"', _MARKS.sub("", text)))


def _module(path: str) -> str:
    path = path.replace("\\", "/")
    installed = _INSTALLED.split(path)
    return installed[-1] if len(installed) > 1 else "/".join(path.split("/")[-2:])


@cache
def _local_path() -> re.Pattern[str]:
    here = re.escape("/".join(Path.cwd().parts[1:2]) or "home")
    return re.compile(rf"""(^|[\s"'(\[=,:])(/(?:{_ROOTS}|{here})/[^\s"'()\[\],:;]+|[A-Za-z]:\\[^\s"']+)""")
