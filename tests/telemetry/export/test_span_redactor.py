"""No text of a span leaves unread, whatever else the span has, wherever it comes from."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanKind, Status, StatusCode

from telemetry.export import otlp
from telemetry.export.formats.error import MAX_LINE, MAX_STACK
from telemetry.export.redact import Redactor
from telemetry.export.stages import STUB, build_redact_stage, build_stages, prepare, prepare_all
from telemetry.settings import Settings
from tests.processes import ROOT
from tests.telemetry.export.test_stages import any_span
from tests.telemetry.planted import (
    ENCODINGS,
    FEATURES,
    LETTERS,
    MODES,
    MORE_PLACES,
    TOKEN,
    encoded,
    finished,
    with_changes,
)

PROTOBUF = "application/x-protobuf"


STAGES = {name: build_stages(Settings.model_validate(mode)) for name, mode in MODES.items()}


@pytest.mark.parametrize("place", MORE_PLACES)
@pytest.mark.parametrize("feature", FEATURES)
def test_no_secret_leaves_from_any_place_beside_anything(place: str, feature: str) -> None:
    """A secret in each place of a span, beside each other thing that a span may have, in each mode: none leaves."""
    span = MORE_PLACES[place](TOKEN)
    span = with_changes(span, **FEATURES[feature](span))

    assert place == "bytes" or TOKEN.encode() in encoded(span)
    for mode, stages in STAGES.items():
        body = b"".join(prepare_all([finished("other"), span], stages))
        assert TOKEN.encode() not in body, mode
        assert STUB.encode() not in body, mode


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    place=st.sampled_from(sorted(MORE_PLACES)),
    other=st.sampled_from(sorted(MORE_PLACES)),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    mode=st.sampled_from(sorted(MODES)),
    beside=st.lists(any_span(), max_size=2),
)
def test_no_secret_leaves_with_other_spans(
    place: str, other: str, encoding: str, mode: str, beside: list[ReadableSpan]
) -> None:
    """Secrets in two places of two spans, written in any way, among spans that hold anything: none leaves."""
    text = ENCODINGS[encoding](TOKEN)
    spans = [MORE_PLACES[place](text), *beside, MORE_PLACES[other](text)]

    body = b"".join(prepare_all(spans, STAGES[mode]))
    # Not in halves either.
    assert LETTERS[:12].encode() not in body
    assert LETTERS[24:36].encode() not in body


@pytest.mark.parametrize("mode", ["default", "openinference", "contacts", "metadata"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(span=any_span(), place=st.sampled_from(sorted(MORE_PLACES)), is_secret=st.booleans())
def test_the_search_of_all_texts_saves_time_and_nothing_else(
    mode: str, span: ReadableSpan, place: str, is_secret: bool
) -> None:
    """Where one search finds nothing, a span becomes what it becomes when each of its texts is searched."""
    stage = build_redact_stage(Settings.model_validate(MODES[mode]))
    thorough = replace(stage, redactor=_Thorough(contacts=mode == "contacts"))
    planted = MORE_PLACES[place](TOKEN if is_secret else "it is a fine day")

    for each in (otlp.from_sdk(span), otlp.from_sdk(planted)):
        assert stage(each) == thorough(each)
    both = [otlp.from_sdk(span), otlp.from_sdk(planted)]
    assert stage.redact_all(both) == thorough.redact_all(both)


class _Thorough(Redactor):
    """Searches each text by itself, and walks through all values."""

    def may_apply(self, texts: Any) -> bool:
        list(texts)
        return True

    def needs_no_walk(self, fields: Any) -> bool:
        assert isinstance(fields, dict)
        return False


@pytest.mark.parametrize("place", MORE_PLACES)
def test_spans_of_other_processes_are_redacted_as_ours(place: str) -> None:
    """What another process sends, its scopes and its trace state too, is redacted before it is spooled."""
    (received,) = otlp.decode(encoded(MORE_PLACES[place](TOKEN)), PROTOBUF)

    assert TOKEN.encode() not in otlp.encode(build_redact_stage(Settings())(received))


@pytest.mark.parametrize("place", MORE_PLACES)
def test_the_stub_of_a_span_is_redacted_too(place: str) -> None:
    """A span that cannot be prepared leaves nothing of what somebody named, with a redactor or without."""

    def broken(_: otlp.Span) -> otlp.Span:
        raise RuntimeError

    for stages in ((broken,), (broken, build_redact_stage(Settings()))):
        body = prepare(MORE_PLACES[place](TOKEN), stages)
        assert TOKEN.encode() not in body
        assert STUB.encode() in body


def test_without_a_redactor_nothing_leaves() -> None:
    """A list of stages that redacts nothing makes stubs only."""
    for body in (prepare(finished("chat"), ()), *prepare_all([finished("chat")], ())):
        (arrived,) = otlp.decode(body, PROTOBUF)
        assert arrived.attributes[STUB] is True
        assert (arrived.name, arrived.resource) == ("withheld", {})


def test_only_the_redactor_says_that_a_span_is_redacted() -> None:
    """Only the redactor makes what the encoder takes; but for the stub, which is empty, and the viewer's downloads."""
    makers = {
        str(path.relative_to(ROOT))
        for path in Path(ROOT, "telemetry").rglob("*.py")
        if re.search(r"RedactedSpan(?:\.of)?\(", re.sub(r"class RedactedSpan\(Span\)", "", path.read_text()))
    }

    assert makers == {
        "telemetry/export/redact/stage.py",
        "telemetry/export/stages.py",
        "telemetry/viewer/otlp_json.py",
    }


@pytest.mark.parametrize("offset", range(0, 40, 4))
@pytest.mark.parametrize("limit", [MAX_LINE, 4 * MAX_LINE, MAX_STACK, 4 * MAX_STACK, 48_000, 200])
def test_no_half_of_a_secret_is_left(limit: int, offset: int) -> None:
    """What is cut to some length is cut after redaction, in a value, a preview, an error or a stack."""
    long = "eyJ" + "hbGciOiJIUzI1NiJ9." + "a1B" * (limit // 3)
    texts = {
        "head": f"{long[: limit - offset - 1]} {TOKEN} and so on",
        "tail": f"{TOKEN} {long[: limit - offset - 1]}",
    }
    for text in texts.values():
        raised = {"exception.type": "ValueError", "exception.message": text, "exception.stacktrace": text}
        status = Status(StatusCode.ERROR, text)
        tool = {"openinference.span.kind": "TOOL", "input.value": text, "note": text}
        span = finished(text, status, attributes=tool, events=(Event("exception", raised, 1),))
        for mode, stages in STAGES.items():
            body = prepare(span, stages)
            assert LETTERS[:8].encode() not in body, mode
            assert LETTERS[28:36].encode() not in body, mode


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (f"https://hooks.slack.com/services/T0/B0/{LETTERS}", "POST hooks.slack.com /services/[redacted webhook]"),
        (f"https://ada:{LETTERS}@a.org/x", "POST a.org /x"),
        (f"https://a.org/{TOKEN}/42", "POST a.org /[redacted key]/{id}"),
        ("https://a.org/items/42?x=1", "POST a.org /items/{id}"),
    ],
)
def test_the_name_of_a_call_is_made_of_the_redacted_address(url: str, name: str) -> None:
    """What is secret in an address is so in the name that is made of it."""
    span = finished("POST", kind=SpanKind.CLIENT, attributes={"http.request.method": "POST", "url.full": url})
    (arrived,) = otlp.decode(prepare(span, STAGES["default"]), PROTOBUF)

    assert arrived.name == name
