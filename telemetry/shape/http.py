"""HTTP spans: stable names of attributes, and a name that says what is called."""

import re
from urllib.parse import urlsplit

from telemetry.otlp import Attributes, Span

_STABLE = {
    "http.method": "http.request.method",
    "http.url": "url.full",
    "http.status_code": "http.response.status_code",
    "http.scheme": "url.scheme",
    "http.user_agent": "user_agent.original",
    "net.peer.name": "server.address",
    "net.peer.port": "server.port",
}
_ID = re.compile(r"\d+|[0-9a-fA-F]{16,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LONGEST = 100


def stable(attributes: Attributes) -> Attributes:
    """Return the attributes under the names of the stable HTTP conventions."""
    if attributes.keys().isdisjoint(_STABLE):
        return attributes
    return {_STABLE.get(key, key): value for key, value in attributes.items()}


def name(span: Span, attributes: Attributes) -> str:
    """Return the name of a span; that of an HTTP call says the method, the service and the path."""
    url = attributes.get("url.full")
    method = attributes.get("http.request.method")
    if span.kind != "CLIENT" or not isinstance(url, str) or span.name != method:
        return span.name
    parts = urlsplit(url)
    peer = attributes.get("service.peer.name") or attributes.get("peer.service") or parts.hostname
    path = "/".join("{id}" if _ID.fullmatch(part) else part for part in parts.path.split("/"))
    return f"{method} {peer} {attributes.get('url.template') or path}"


def short_name(span: Span) -> Span:
    """Return the span with the name of a call as short as people read it.

    It is cut from what has been redacted already: half a secret is recognised by nobody.
    """
    is_call = span.kind == "CLIENT" and "url.full" in span.attributes
    return span.but(name=span.name[:_LONGEST]) if is_call and len(span.name) > _LONGEST else span
