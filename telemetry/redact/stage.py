"""The stage that every span passes before it touches disk or wire."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from telemetry.json_text import dump, parse
from telemetry.otlp import Attributes, Event, Link, Span
from telemetry.redact.content import hide, metadata_only
from telemetry.redact.fence import Fence
from telemetry.said import Said

_USER = ("user.id", "langfuse.user.id", "enduser.id")
# Set on purpose, to find a conversation by: an address in them is no slip.
_IDS = (*_USER, "session.id")
# What a graph's config says of its user, OpenInference repeats on every span.
_METADATA = "metadata"
_USER_IN_METADATA = ("user_id", "langfuse_user_id")
_PSEUDONYM = re.compile(r"user-[0-9a-f]{20}")


@dataclass(frozen=True)
class Redact:
    """Takes what is secret, and what is not to leave, out of all parts of a span."""

    fence: Fence
    hide_inputs: bool = False
    hide_outputs: bool = False
    only_metadata: bool = False
    user_key: bytes = b""
    # For spans whose sender may have the same key: an id that is a hash already is not hashed again.
    keeps_pseudonyms: bool = False
    _resources: dict[int, tuple[Attributes, Attributes]] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, span: Span) -> Span:
        """Return the span without its secrets."""
        return self.all([span])[0]

    def all(self, spans: Sequence[Span]) -> list[Span]:
        """Return the spans without their secrets; mostly there is none in any of them, and one search says so."""
        kept = [self._kept(span) for span in spans]
        new = self.fence.new_parts(said for span in kept for said in span.attributes.values() if isinstance(said, Said))
        if self.fence.kinds_in([*new, *(text for span in kept for text in _texts(span))]):
            return [self._fenced(span, self.fence.kinds_in(_texts(span))) for span in kept]
        self.fence.remember(new)
        return [self._fenced(span, frozenset()) for span in kept]

    def _kept(self, span: Span) -> Span:
        if self.only_metadata:
            span = metadata_only(span)
        attributes = self._pseudonymised(self._shown(span.attributes))
        return span if attributes is span.attributes else span.but(attributes=attributes)

    def _shown(self, attributes: Attributes) -> Attributes:
        return hide(attributes, inputs=self.hide_inputs, outputs=self.hide_outputs)

    def _pseudonymised(self, attributes: Attributes) -> Attributes:
        if not self.user_key or attributes.keys().isdisjoint((*_USER, _METADATA)):
            return attributes
        hidden = {key: self._pseudonym(str(value)) for key, value in attributes.items() if key in _USER}
        told = parse(attributes.get(_METADATA))
        if isinstance(told, dict) and not told.keys().isdisjoint(_USER_IN_METADATA):
            names = {key: self._pseudonym(str(told[key])) for key in _USER_IN_METADATA if told.get(key)}
            hidden[_METADATA] = dump({**told, **names})
        return {**attributes, **hidden}

    def _pseudonym(self, user: str) -> str:
        return user if self.keeps_pseudonyms and _PSEUDONYM.fullmatch(user) else pseudonym(self.user_key, user)

    def _fenced(self, span: Span, kinds: frozenset[int]) -> Span:
        resource = self._resource(span.resource)
        if not (kinds or span.events or span.links) and self.fence.passes(span.attributes):
            clean = {key: self.fence.said(value) for key, value in span.attributes.items() if value.__class__ is Said}
            return span.but(attributes={**span.attributes, **clean}, resource=resource)
        return span.but(
            name=self.fence.value(span.name, kinds),
            message=self.fence.value(span.message, kinds),
            trace_state=self.fence.value(span.trace_state, kinds),
            attributes=self._attributes(span.attributes, kinds),
            events=[self._event(event, kinds) for event in span.events],
            links=[self._link(link, kinds) for link in span.links],
            resource=resource,
        )

    def _resource(self, resource: Attributes) -> Attributes:
        # All spans of a process have one, and it is the same object; the other is there so that its id is not reused.
        given, clean = self._resources.get(id(resource), ({}, {}))
        if given is not resource:
            texts: list[str] = []
            _gather(resource, texts)
            clean = self._attributes(resource, self.fence.kinds_in(texts))
            self._resources.clear()
            self._resources[id(resource)] = (resource, clean)
        return clean

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


def pseudonym(key: bytes, user: str) -> str:
    """Return what stands for a user id: the same for the same key, and nobody without it can tell whose it is."""
    return "user-" + hmac.new(key, user.encode(), hashlib.sha256).hexdigest()[:20]


def _texts(span: Span) -> list[str]:
    texts = [span.name, span.message, span.trace_state, *(event.name for event in span.events)]
    for part in (span.attributes, *(each.attributes for each in (*span.events, *span.links))):
        _gather(part, texts)
    return texts


def _gather(value: Any, texts: list[str]) -> None:
    if value.__class__ is str:
        texts.append(value)
    elif isinstance(value, Said):
        # It is searched part by part.
        return
    elif isinstance(value, str):
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
