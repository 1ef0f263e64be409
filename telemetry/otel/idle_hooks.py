"""Recognise hooks of LangChain's middleware that did nothing: an agent runs several of them around each model call."""

import re

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, StatusCode

from telemetry.export.formats.marks import HAS_CHILDREN, RECORDERS

_HOOK = re.compile(r"[\w-]+\.(?:before|after)_(?:agent|model)")


def note_child(parent: Span) -> None:
    """Record that a hook has a span below it, which would lose its parent."""
    name = getattr(parent, "name", "")
    if "." in name and _HOOK.fullmatch(name):
        parent.set_attribute(HAS_CHILDREN, True)


def is_idle_hook(span: ReadableSpan) -> bool:
    """Return whether a finished span is that of a hook that has changed nothing and has nothing below it."""
    attributes, scope = span.attributes or {}, span.instrumentation_scope
    return (
        "." in span.name
        and _HOOK.fullmatch(span.name) is not None
        and scope is not None
        and scope.name in RECORDERS
        and span.status.status_code is not StatusCode.ERROR
        and attributes.get("output.value") == "null"
        and HAS_CHILDREN not in attributes
        and not span.events
    )
