"""The stage that every span passes before it touches disk or wire."""

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import Any

from telemetry.otlp import Attributes, Event, Link, Span
from telemetry.redact.content import hide, metadata_only
from telemetry.redact.fence import Fence

_USER = ("user.id", "langfuse.user.id", "enduser.id")
# Set on purpose, to find a conversation by: an address in them is no slip.
_IDS = (*_USER, "session.id")


@dataclass(frozen=True)
class Redact:
    """Takes what is secret, and what is not to leave, out of all parts of a span."""

    fence: Fence
    hide_inputs: bool = False
    hide_outputs: bool = False
    only_metadata: bool = False
    user_key: bytes = b""

    def __call__(self, span: Span) -> Span:
        """Return the span without its secrets."""
        if self.only_metadata:
            span = metadata_only(span)
        attributes = self._pseudonymised(self._shown(span.attributes))
        return self._fenced(span if attributes is span.attributes else replace(span, attributes=attributes))

    def _shown(self, attributes: Attributes) -> Attributes:
        return hide(attributes, inputs=self.hide_inputs, outputs=self.hide_outputs)

    def _pseudonymised(self, attributes: Attributes) -> Attributes:
        if not self.user_key or attributes.keys().isdisjoint(_USER):
            return attributes
        return {
            key: _pseudonym(self.user_key, str(value)) if key in _USER else value for key, value in attributes.items()
        }

    def _fenced(self, span: Span) -> Span:
        kinds = self.fence.kinds_in(_texts(span))
        if not (kinds or span.events or span.links) and all(map(self.fence.passes, (span.attributes, span.resource))):
            return span
        return replace(
            span,
            name=self.fence.value(span.name, kinds),
            message=self.fence.value(span.message, kinds),
            trace_state=self.fence.value(span.trace_state, kinds),
            attributes=self._attributes(span.attributes, kinds),
            events=[self._event(event, kinds) for event in span.events],
            links=[self._link(link, kinds) for link in span.links],
            resource=self._attributes(span.resource, kinds),
        )

    def _attributes(self, attributes: Attributes, kinds: frozenset[int]) -> Attributes:
        if not kinds and self.fence.passes(attributes):
            return attributes
        return {
            self.fence.value(key, kinds): self.fence.field(
                key, value, kinds - self.fence.contacts if key in _IDS else kinds
            )
            for key, value in attributes.items()
        }

    def _event(self, event: Event, kinds: frozenset[int]) -> Event:
        attributes = self._attributes(event.attributes, kinds)
        return replace(event, name=self.fence.value(event.name, kinds), attributes=attributes)

    def _link(self, link: Link, kinds: frozenset[int]) -> Link:
        return replace(link, attributes=self._attributes(link.attributes, kinds))


def _pseudonym(key: bytes, user: str) -> str:
    return "user-" + hmac.new(key, user.encode(), hashlib.sha256).hexdigest()[:20]


def _texts(span: Span) -> list[str]:
    texts = [span.name, span.message, span.trace_state, *(event.name for event in span.events)]
    for part in (span.attributes, span.resource, *(each.attributes for each in (*span.events, *span.links))):
        _gather(part, texts)
    return texts


def _gather(value: Any, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        texts.extend(value)
        for each in value.values():
            _gather(each, texts)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _gather(each, texts)
    elif isinstance(value, int):
        texts.append(str(value))
