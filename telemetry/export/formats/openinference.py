"""The format for any backend: keys are unchanged, errors and HTTP calls become readable."""

import re
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from telemetry.export.formats.error import exception_events, make_error_readable
from telemetry.export.formats.flat_messages import input_messages
from telemetry.export.formats.genai import genai
from telemetry.export.formats.marks import ANSWER, MARKS, QUESTION, RECORDERS, SAME_CALL_BELOW
from telemetry.export.formats.messages import as_langchain_writes
from telemetry.export.otlp import Attributes, Event, Span
from telemetry.json_text import dump, parse
from telemetry.messages_json import MessagesJson

_STABLE = {
    "http.method": "http.request.method",
    "http.url": "url.full",
    "http.status_code": "http.response.status_code",
    "http.scheme": "url.scheme",
    "http.user_agent": "user_agent.original",
    "net.peer.name": "server.address",
    "net.peer.port": "server.port",
}
_KIND = "openinference.span.kind"
_ANSWER_BEGAN = "langfuse.observation.completion_start_time"
_TRACE, _METADATA = "langfuse.trace.", "metadata."
# As agent.name and as session.id.
_SAID_ELSEWHERE = {"agent", "thread"}
_ID = re.compile(r"\d+|[0-9a-fA-F]{16,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REDACTED_LOGIN = re.compile(r"\[redacted login\]@")
_MAX_NAME = 100
# Its instrumentor takes each method of a model's class for a call.
_LLAMA_INDEX = "openinference.instrumentation.llama_index"


def openinference(span: Span) -> Span:
    """Return the span in OpenInference's keys: messages also one by one, an exception also as an event."""
    shaped = with_readable_names(span)
    attributes = {**input_messages(shaped), **_own_keys(_unmarked(shaped.attributes))}
    given = attributes.get("input.value")
    if attributes.get(_KIND) == "LLM" and isinstance(given, MessagesJson):
        attributes["input.value"] = as_langchain_writes(given)
    if span.scope in RECORDERS:
        # A span that OpenInference's own instrumentor makes, too, has its attributes and no others.
        attributes.pop("turn.status", None)
    events = [*shaped.events, *(exception_events(span) if shaped.status == "ERROR" else ())]
    if (began := nanoseconds(attributes.get(_ANSWER_BEGAN))) is not None:
        # As OpenInference's instrumentors of models' clients say it.
        del attributes[_ANSWER_BEGAN]
        events.insert(0, Event("First Token Stream Event", began, {}))
    return shaped.but(attributes=attributes, events=events)


def _unmarked(attributes: Attributes) -> Attributes:
    return {key: value for key, value in attributes.items() if key not in MARKS}


def _own_keys(attributes: Attributes) -> Attributes:
    """Return the attributes with what is said of the trace under OpenInference's keys, which are each span's."""
    about = {key.removeprefix(_TRACE): value for key, value in attributes.items() if key.startswith(_TRACE)}
    if not about:
        return attributes
    kept = {key: value for key, value in attributes.items() if not key.startswith(_TRACE)}
    agent, tags = about.get("name"), about.get("tags")
    tags = tags if isinstance(tags, (list, tuple)) else ()
    if agent and kept.get(_KIND) == "AGENT":
        kept.setdefault("agent.name", agent)
    if own := [tag for tag in tags if tag != agent]:
        kept.setdefault("tag.tags", own)
    fields = {key.removeprefix(_METADATA): value for key, value in about.items() if key.startswith(_METADATA)}
    known = parse(kept.get("metadata")) or {}
    if isinstance(known, dict) and (more := fields.keys() - known.keys() - _SAID_ELSEWHERE):
        kept["metadata"] = dump({**known, **{key: fields[key] for key in sorted(more)}})
    return kept


def nanoseconds(text: Any) -> int | None:
    """Return a time in ISO 8601 in nanoseconds; None where it is none."""
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1e9)
    except (TypeError, ValueError, OverflowError):
        return None


def with_readable_names(span: Span) -> Span:
    """Return the span with its own keys, errors in one line, and the stable attribute names for HTTP calls.

    What the GenAI conventions say is there under OpenInference's names as well, and so are, on the root of a trace,
    the question and the answer that are known from below it.
    """
    attributes = _typed(span, genai(span.attributes))
    for mark, key in ((QUESTION, "input.value"), (ANSWER, "output.value")):
        if mark in attributes and not attributes.get(key):
            attributes = {**attributes, key: attributes[mark]}
    if not attributes.keys().isdisjoint(_STABLE):
        attributes = {_STABLE.get(key, key): value for key, value in attributes.items()}
    return make_error_readable(span.but(attributes=attributes))


def _typed(span: Span, attributes: Attributes) -> Attributes:
    """Return the attributes with the kind of a chain where a span is of no model call, or not of the one below it."""
    if attributes.get(_KIND) != "LLM":
        return attributes
    is_helper = span.scope.startswith(_LLAMA_INDEX) and "._" in span.name
    return {**attributes, _KIND: "CHAIN"} if is_helper or SAME_CALL_BELOW in attributes else attributes


def name_http_call(span: Span) -> Span:
    """Return the span of an HTTP call, named by method, service and path.

    It runs after redaction, because part of a secret in an address would not be recognised.
    """
    attributes = span.attributes
    url = attributes.get("url.full")
    if span.kind != "CLIENT" or not isinstance(url, str):
        return span
    name = span.name
    if name == attributes.get("http.request.method"):
        try:
            parts = urlsplit(_REDACTED_LOGIN.sub("", url))
            host = parts.hostname
        except ValueError:  # a placeholder for a secret may make the address invalid
            return span
        peer = attributes.get("service.peer.name") or attributes.get("peer.service") or host
        path = "/".join("{id}" if _ID.fullmatch(part) else part for part in parts.path.split("/"))
        name = f"{name} {peer} {attributes.get('url.template') or path}"
    return span.but(name=name[:_MAX_NAME])
