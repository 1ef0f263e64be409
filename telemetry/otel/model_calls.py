"""Find the model call that the current code makes, whatever instrumentation records it."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary, ref

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import get_current_span

from telemetry import pipeline
from telemetry.export.formats.genai import MODEL_OPERATIONS
from telemetry.export.formats.marks import RECORDERS
from telemetry.otel.local_root import recorded_span

_KIND, _OPERATION = "openinference.span.kind", "gen_ai.operation.name"
_URL, _METHOD = ("url.full", "http.url"), ("http.request.method", "http.method")

_LLAMA_INDEX = "openinference.instrumentation.llama_index"
_METHODS = re.compile(r"\.a?(?:stream_)?(?:chat|complete)(?:_with_tools)?$")

# A client that streams may make its request when its span is not current any more.
_latest: ContextVar["ref[Span] | None"] = ContextVar("telemetry-latest-model-call", default=None)


class _Addresses(WeakKeyDictionary[Span, str]):
    """Where each open model call sent its first request."""


def is_model_call(attributes: Mapping[str, Any] | None) -> bool:
    """Return whether these are the attributes of a model call, by OpenInference's or by GenAI's names."""
    known = attributes or {}
    return known.get(_KIND) == "LLM" or (_KIND not in known and known.get(_OPERATION) in MODEL_OPERATIONS)


def is_model_span(span: Span) -> bool:
    """Return whether a span that has not ended is that of a model call."""
    scope = span.instrumentation_scope
    # LlamaIndex's says what a span is when it ends.
    is_late = scope is not None and scope.name == _LLAMA_INDEX
    return is_model_call(span.attributes) or (is_late and _METHODS.search(span.name) is not None)


def note_model_call(span: Span) -> None:
    """Record a model call when its span starts."""
    if is_model_span(span):
        _latest.set(ref(span))


def open_model_call(context: Context | None) -> Span | None:
    """Return the span of the model call that this code makes; None where there is none, or LangChain makes it."""
    latest = _latest.get()
    for span in (recorded_span(get_current_span(context)), latest and latest()):
        if span and span.is_recording() and is_model_span(span):
            scope = span.instrumentation_scope
            return None if scope and scope.name in RECORDERS else span
    return None


def is_request_of(call: Span, attributes: Mapping[str, Any] | None) -> bool:
    """Return whether an HTTP request is one of this call: its first POST, or another to the same address."""
    known = attributes or {}
    method, url = (next((known[name] for name in names if name in known), None) for names in (_METHOD, _URL))
    if method != "POST" or not isinstance(url, str):
        return False
    return pipeline.shared(_Addresses).setdefault(call, url) == url
