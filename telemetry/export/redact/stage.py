"""The stage that redacts every span before it is written to disk or sent."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from telemetry.export.media import Attachment, Collector, Field, Media, collecting
from telemetry.export.otlp import Attributes, RedactedSpan, Span
from telemetry.export.redact.content import hide, metadata_only
from telemetry.export.redact.patterns import counted_together
from telemetry.export.redact.redactor import Redactor
from telemetry.json_text import dump, parse
from telemetry.lru_cache import cache_last
from telemetry.messages_json import MessagesJson

_USER = ("user.id", "langfuse.user.id", "enduser.id")
# Set on purpose, to find a conversation: contacts in them are not redacted.
_IDS = (*_USER, "session.id", "gen_ai.conversation.id")
# OpenInference repeats the user of a graph's config on every span.
_METADATA = "metadata"
_USER_IN_METADATA = ("user_id", "langfuse_user_id")
# Where the attributes begin that hold an input or an output.
_FIELDS: dict[Field, tuple[str, ...]] = {
    "input": (
        "input.value",
        "langfuse.observation.input",
        "llm.input_messages",
        "gen_ai.input",
        "gen_ai.tool.call.arguments",
    ),
    "output": (
        "output.value",
        "langfuse.observation.output",
        "llm.output_messages",
        "gen_ai.output",
        "gen_ai.tool.call.result",
    ),
}
# Conversations are searched part by part.
_WITHOUT_TEXT = frozenset({MessagesJson, int, bool, float})
_PSEUDONYM = re.compile(r"user-[0-9a-f]{20}")


@dataclass(frozen=True)
class SpanRedactor:
    """Removes secrets, and content that must not be sent, from all parts of a span."""

    redactor: Redactor
    hide_inputs: bool = False
    hide_outputs: bool = False
    only_metadata: bool = False
    user_key: bytes = b""
    # For spans of a sender that may use the same key: an id that is already hashed is not hashed again.
    keeps_pseudonyms: bool = False
    # Whether files are sent beside the span, with references in it.
    sends_media: bool = False
    _redact_resource: cache_last[Attributes, Attributes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_redact_resource", cache_last(self._resource))

    def __call__(self, span: Span) -> RedactedSpan:
        """Return the redacted span."""
        return self.redact_all([span])[0]

    def redact_all(self, spans: Sequence[Span]) -> list[RedactedSpan]:
        """Return the redacted spans; usually one search shows that they contain no secret."""
        kept = [self._without_hidden(span) for span in spans]
        new = self.redactor.new_parts(
            value for span in kept for value in span.attributes.values() if isinstance(value, MessagesJson)
        )
        texts = [_texts(span) for span in kept]
        if self.redactor.may_apply([*new, *chain.from_iterable(texts)]):
            several = len(kept) > 1
            with counted_together():
                return [
                    self._redact(span, searched=several and not self.redactor.may_apply(own))
                    for span, own in zip(kept, texts, strict=True)
                ]
        self.redactor.cache_clean(new)
        return [self._redact(span, searched=True) for span in kept]

    def _without_hidden(self, span: Span) -> Span:
        if self.only_metadata:
            span = metadata_only(span)
        span = hide(span, inputs=self.hide_inputs, outputs=self.hide_outputs)
        if not self.user_key or span.attributes.keys().isdisjoint((*_USER, _METADATA)):
            return span
        return span.but(attributes=self._pseudonymize(span.attributes))

    def _pseudonymize(self, attributes: Attributes) -> Attributes:
        def hash_user(user: Any) -> str:
            is_hash = self.keeps_pseudonyms and _PSEUDONYM.fullmatch(str(user))
            return str(user) if is_hash else pseudonym(self.user_key, str(user))

        hidden = {key: hash_user(value) for key, value in attributes.items() if key in _USER}
        metadata = parse(attributes.get(_METADATA))
        if isinstance(metadata, dict) and not metadata.keys().isdisjoint(_USER_IN_METADATA):
            users = {key: hash_user(metadata[key]) for key in _USER_IN_METADATA if metadata.get(key)}
            hidden[_METADATA] = dump({**metadata, **users})
        return {**attributes, **hidden}

    def _redact(self, span: Span, *, searched: bool) -> RedactedSpan:
        """Return the span with each of its texts redacted; `searched` means that no rule matches any of them."""

        def text(value: str) -> str:
            return self.redactor.redact_value(value, searched=searched)

        def attributes(given: Attributes) -> Attributes:
            return self._attributes(given, searched=searched)

        collector = Collector(lambda text: self.redactor.redact_text(text) == text) if self.sends_media else None
        with collecting(collector):
            clean = attributes(span.attributes)
        return RedactedSpan.of(
            span,
            attachments=_attachments(span, clean, collector.found) if collector and collector.found else (),
            name=text(span.name),
            message=text(span.message),
            trace_state=text(span.trace_state),
            scope=text(span.scope),
            scope_version=text(span.scope_version),
            scope_attributes=attributes(span.scope_attributes) if span.scope_attributes else {},
            attributes=clean,
            events=[
                replace(each, name=text(each.name), attributes=attributes(each.attributes)) for each in span.events
            ],
            links=[replace(each, attributes=attributes(each.attributes)) for each in span.links],
            resource=self._redact_resource(span.resource),
        )

    def _resource(self, resource: Attributes) -> Attributes:
        return self._attributes(resource, searched=False)

    def _attributes(self, attributes: Attributes, *, searched: bool) -> Attributes:
        redactor = self.redactor
        if searched and redactor.needs_no_walk(attributes):
            # Conversations are searched part by part: the search of the other texts does not include them.
            clean = {
                key: redactor.redact_messages(value)
                for key, value in attributes.items()
                if isinstance(value, MessagesJson)
            }
            return {**attributes, **clean} if clean else attributes
        return {
            redactor.redact_value(key, searched=searched): redactor.redact_field(
                key, value, searched=searched, contacts=key not in _IDS
            )
            for key, value in attributes.items()
        }


def pseudonym(key: bytes, user: str) -> str:
    """Return the keyed hash of a user id, which cannot be reversed without the key."""
    return "user-" + hmac.new(key, user.encode(), hashlib.sha256).hexdigest()[:20]


def _attachments(span: Span, attributes: Attributes, found: Sequence[Media]) -> tuple[Attachment, ...]:
    """Return each of the files once for each place of the span in which there is a reference to it."""
    places: dict[tuple[Field, str], Media] = {}
    for media in found:
        for key, value in attributes.items():
            if media.reference in str(value):
                places[_field(key), media.id] = media
    return tuple(Attachment(span.trace_id, span.span_id, field, media) for (field, _), media in places.items())


def _field(key: str) -> Field:
    for place, keys in _FIELDS.items():
        if key.startswith(keys):
            return place
    return "metadata"


def _texts(span: Span) -> list[str]:
    texts = [span.name, span.message, span.trace_state, span.scope, span.scope_version]
    texts += [event.name for event in span.events]
    for attributes in (
        span.attributes,
        span.scope_attributes,
        *(each.attributes for each in (*span.events, *span.links)),
    ):
        _gather(attributes, texts)
    return texts


def _gather(value: Any, texts: list[str]) -> None:
    if isinstance(value, str) and value.__class__ is not MessagesJson:
        texts.append(value)
    elif isinstance(value, dict):
        for key, each in value.items():
            texts.append(str(key))
            kind = each.__class__
            if kind is str:
                texts.append(each)
            elif kind not in _WITHOUT_TEXT:
                _gather(each, texts)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _gather(each, texts)
