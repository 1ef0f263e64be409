"""Nothing secret leaves, and what is no secret stays."""

import gzip
import io
import itertools
import json
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from pydantic import BaseModel, SecretStr

from telemetry.export import otlp
from telemetry.export.redact import LogFilter, Redactor
from telemetry.export.stages import STUB, build_redactor, build_stages, prepare, prepare_all
from telemetry.settings import Settings, SettingsError, load_settings
from telemetry.viewer.app import create_app
from telemetry.viewer.settings import ViewerSettings
from tests.processes import serve
from tests.telemetry.planted import (
    CONTEXT,
    LINES,
    LOOKS,
    NAMES,
    OPEN_SESAME,
    ORDINARY,
    Plant,
    conversation,
    encoded,
    finished,
    plants,
)

PROTOBUF = "application/x-protobuf"
REDACTOR = build_redactor(Settings())


@pytest.fixture
def redactor() -> Redactor:
    return REDACTOR


def sent(span: ReadableSpan, **environment: Any) -> otlp.Span:
    """The span as it arrives, with these settings."""
    (arrived,) = otlp.decode(prepare(span, build_stages(Settings.model_validate(environment))), PROTOBUF)
    assert STUB not in arrived.attributes
    return arrived


@pytest.mark.parametrize("shape", ["langfuse", "openinference", "genai", "all"])
def test_no_planted_secret_is_exported(shape: str) -> None:
    """Of a thousand secrets by looks and by name, in every part of a span, none is in any export request."""
    stages = build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape}))
    planted = plants()

    assert len(LOOKS) + len(NAMES) > 60
    assert len(planted) > 900
    requests = [(plant, prepare(plant.span, stages)) for plant in planted]
    assert [plant.where for plant, body in requests if plant.secret.encode() in body] == []
    assert [plant.where for plant, body in requests if STUB.encode() in body] == []


def test_planted_secrets_were_there() -> None:
    """The same spans without redaction do hold the secrets, so that the test above proves something."""
    hidden = [plant.where for plant in plants() if not _holds(plant)]

    assert hidden == []


def _holds(plant: Plant) -> bool:
    return plant.secret.encode() in encoded(plant.span)


def test_no_planted_secret_reaches_the_viewer(tmp_path: Path) -> None:
    """The viewer's database has every span and no secret."""
    stages, planted = build_stages(Settings()), plants()
    keep = ViewerSettings(db=tmp_path / "viewer.db")
    body = b"".join(prepare(plant.span, stages) for plant in planted)

    with serve(create_app(keep)) as url:
        answer = httpx.post(
            f"{url}/api/public/otel/v1/traces",
            content=gzip.compress(body),
            headers={"content-type": PROTOBUF, "content-encoding": "gzip"},
            auth=(keep.public_key, keep.secret_key.get_secret_value()),
        )
    assert answer.status_code == 200
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert [plant.where for plant in planted if plant.secret.encode() in stored] == []


@pytest.mark.parametrize("kind", LOOKS)
def test_parts_are_redacted_as_their_whole(kind: str) -> None:
    """A secret within a part, and one cut in two between parts, becomes what it becomes in the text as a whole."""
    text, secret = LOOKS[kind]
    for at in (0, len(text) // 3, len(text) // 2, len(text)):
        said = conversation("Be brief.", f"it is {text[:at]}", f"{text[at:]} it is", text)
        clean = REDACTOR.redact_messages(said)
        assert json.loads(clean) == json.loads(REDACTOR.redact_text(str(said)))
        assert REDACTOR.redact_messages(said) == clean
        if at in (0, len(text)):
            assert secret not in clean


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"events": (Event("cache miss"),)},
        {"links": (Link(CONTEXT),)},
        {"events": (Event("exception", {"exception.message": "no"}),), "links": (Link(CONTEXT, {"why": "because"}),)},
        {"status": Status(StatusCode.ERROR, "no")},
    ],
    ids=["nothing", "event", "link", "both", "status"],
)
@pytest.mark.parametrize("kind", LOOKS)
def test_a_conversation_is_searched_whatever_else_the_span_has(kind: str, beside: dict[str, Any]) -> None:
    """What is searched part by part is searched as well where the span's other texts hold nothing to find."""
    text, secret = LOOKS[kind]
    said = conversation("Be brief.", text)
    (body,) = prepare_all([finished(attributes={"input.value": said}, **beside)], build_stages(Settings()))

    assert secret.encode() not in body
    assert STUB.encode() not in body


def test_a_part_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a conversation and its next turn have in common is redacted once, and stays the very same object."""
    redactor, searched = build_redactor(Settings()), list[str]()
    search = redactor.may_apply
    monkeypatch.setattr(redactor, "may_apply", lambda parts: searched.extend(parts) or search(parts))
    turns = [conversation(*(f"number {at}" for at in range(turn))) for turn in range(1, 30)]

    for turn in turns:
        assert redactor.redact_messages(turn) is turn
    assert len(searched) == 29 + len(("[", ",", "]"))


def test_a_hash_beside_other_texts_is_no_file(redactor: Redactor) -> None:
    """The spans of a turn with a tool, each call of which has the hash of its result, are searched once together."""
    digest = sha256(b"a result").hexdigest()

    assert not redactor.may_apply(["look_up", digest, "Please look it up.", digest.upper(), "tools"])
    assert redactor.redact_text(digest) == digest


@pytest.mark.parametrize("between", ["\n", "\r\n", "\n> ", "\\n", "\n    "])
@pytest.mark.parametrize("first", ["a1b2c3d4e5" * 7, "A1B2C3D4E5" * 7])
def test_a_file_may_begin_with_a_line_that_could_be_a_hash(redactor: Redactor, first: str, between: str) -> None:
    """All of its lines are looked at."""
    line = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzAbCdEfGhIjKlMnOpQrStUvWxYz01234"
    text = f"see {between.join([first, line, line])} here"

    assert redactor.may_apply([text])
    assert line not in redactor.redact_text(text)


@pytest.fixture
def lines(redactor: Redactor) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(LogFilter(redactor))
    logger = logging.getLogger("planted")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, written
    logger.removeHandler(handler)


@pytest.mark.parametrize("kind", LOOKS)
def test_no_planted_secret_is_logged(kind: str, lines: tuple[logging.Logger, io.StringIO]) -> None:
    """A log line shows a secret neither in its message nor in its arguments nor in a stack."""
    logger, written = lines
    text, secret = LOOKS[kind]

    logger.error("it is " + text)  # noqa: G003 - as people write it
    logger.error("it is %s, or %r", text, [text])
    try:
        json.loads(f"{text}{{")
    except ValueError as error:
        error.add_note(text)
        logger.exception("it broke")

    assert secret not in written.getvalue()
    assert written.getvalue().count("it is") == 2
    assert "Traceback" in written.getvalue()


@pytest.mark.parametrize("kind", LOOKS)
def test_no_planted_secret_is_logged_beside_the_message(kind: str, lines: tuple[logging.Logger, io.StringIO]) -> None:
    """What a record is given as extra fields, which some formatters write, has no secret either, nor has its stack."""
    logger, written = lines
    text, secret = LOOKS[kind]
    logger.handlers[0].setFormatter(logging.Formatter("%(message)s %(note)s %(given)s %(password)s %(count)s"))
    given = {"note": f"it is {text}", "given": {"deep": [text]}, "password": OPEN_SESAME, "count": 3}

    logger.error("it happened", extra=given, stack_info=True)

    assert secret not in written.getvalue()
    assert OPEN_SESAME not in written.getvalue()
    assert "it happened it is " in written.getvalue()
    assert "[redacted] 3\n" in written.getvalue()


def test_sensitive_fields_are_hidden_whole(redactor: Redactor) -> None:
    """What a sensitive field holds is hidden as a whole, however it is built, and its name stays."""
    text = json.dumps({"credentials": {"user": "ada", "key": ["x", "y"], "port": 80}, "city": "Ulm"})

    assert json.loads(redactor.redact_text(text)) == {
        "credentials": {"user": "[redacted]", "key": ["[redacted]", "[redacted]"], "port": 80},
        "city": "Ulm",
    }


def test_a_type_of_its_own_saves_no_field(redactor: Redactor) -> None:
    """Credentials that say of what kind they are are hidden like any; only a description of a field stays."""
    text = json.dumps({"credentials": {"type": "basic", "value": "open sesame"}, "auth": {"type": "string"}})

    assert json.loads(redactor.redact_text(text)) == {
        "credentials": {"type": "[redacted]", "value": "[redacted]"},
        "auth": {"type": "string"},
    }


def test_pairs_of_name_and_value_are_fields() -> None:
    """A value that stands beside a sensitive name, before or behind it, goes as if it were a field of that name."""
    pairs = {
        "list": [["host", "a.org"], ["x-api-key", OPEN_SESAME], ("cookie", [OPEN_SESAME])],
        "maps": [{"value": OPEN_SESAME, "name": "password"}, {"key": "city", "value": "Ulm"}],
        "typed": {"key": "token", "value": {"stringValue": OPEN_SESAME}},
        "command": ["run", "--password", OPEN_SESAME, "--token", "--verbose"],
    }

    assert json.loads(REDACTOR.redact_text(json.dumps(pairs))) == REDACTOR.redact_value(pairs)
    assert REDACTOR.redact_value(pairs) == {
        "list": [["host", "a.org"], ["x-api-key", "[redacted]"], ["cookie", ["[redacted]"]]],
        "maps": [{"value": "[redacted]", "name": "password"}, {"key": "city", "value": "Ulm"}],
        "typed": {"key": "token", "value": {"stringValue": "[redacted]"}},
        "command": ["run", "--password", "[redacted]", "--token", "--verbose"],
    }


@pytest.mark.parametrize("text", ['{"cvv": 737}', '{"card": {"cvc": "737"}}', "cvv=737", "the cvc: 737"])
def test_the_code_of_a_card_is_a_secret(text: str, redactor: Redactor) -> None:
    """Three digits are a secret where they are a card's."""
    assert "737" not in redactor.redact_text(text)


@pytest.mark.parametrize("behind", range(3_930, 4_010, 10))
def test_no_failure_is_cut_within_a_secret(behind: int) -> None:
    """Where a long failure is cut there is no half of a secret left, which nobody would recognise."""
    text = f"{'a ' * 3_000}{LOOKS['openai project'][0]}{' b' * (behind // 2)}"
    line = f"{'a ' * ((behind - 3_470) // 2)}postgres://app:opensesame@db/app"
    about = {"exception.type": "ValueError", "exception.message": line, "exception.stacktrace": text}
    span = finished(status=Status(StatusCode.ERROR, line), events=(Event("exception", about, 1),))

    arrived = sent(span)

    assert LOOKS["openai project"][1][20:] not in str(arrived)
    assert "app:" not in str(arrived)
    assert len(arrived.attributes["exception.stacktrace"]) <= 4_000
    assert len(arrived.attributes["langfuse.observation.status_message"]) <= 500


@pytest.mark.parametrize("behind", range(40))
def test_no_name_of_a_call_is_cut_within_a_secret(behind: int) -> None:
    """Where the name of an HTTP call is cut there is no half of a secret left either."""
    found, secret = LOOKS["openai project"]
    attributes = {"http.request.method": "GET", "url.full": f"http://a.org/{'y.' * behind}/{found}/x/{'z.' * 99}"}

    arrived = sent(finished("GET", kind=SpanKind.CLIENT, attributes=attributes))

    assert secret[:12] not in arrived.name
    assert arrived.name.startswith("GET a.org /" + "y." * behind)
    assert len(arrived.name) <= 100


class Color(StrEnum):
    SECRET = LOOKS["openai"][0]


@pytest.mark.parametrize("text", [AIMessage(LOOKS["openai"][0]).text, Color.SECRET])
def test_strings_of_other_classes(text: str) -> None:
    """A secret is taken out of a LangChain message's text, and of an enumeration's member, as of any string."""
    assert type(text) is not str
    arrived = sent(finished(text, attributes={"output.value": text, "list": ("a", text)}))

    assert arrived.name == arrived.attributes["langfuse.observation.output"] == "[redacted key]"
    assert arrived.attributes["list"] == ["a", "[redacted key]"]


def test_a_quote_within_does_not_end_a_secret(redactor: Redactor) -> None:
    """A password that has a quote in it goes to its end, also where JSON stands within a text."""
    assert redactor.redact_text('Use {"password": "open\\"sesame\\\\", "city": "Ulm"}') == (
        'Use {"password": "[redacted password]", "city": "Ulm"}'
    )


@pytest.mark.parametrize("option", ["-u", "--user", "-U", "--proxy-user"])
def test_logins_of_curl_in_a_list_of_arguments(redactor: Redactor, option: str) -> None:
    """What curl is given to log in with goes, as an attribute and as JSON; who else has such an option keeps it."""
    arguments = ["docker", "run", "-u", "1000:1000", "curl", option, "ada:open sesame", "https://a.org:80"]
    clean = [*arguments[:6], "[redacted login]", *arguments[7:]]

    assert sent(finished(attributes={"process.command_args": arguments})).attributes["process.command_args"] == clean
    assert json.loads(redactor.redact_text(json.dumps(arguments))) == clean


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_keeps_its_meaning(text: str, redactor: Redactor) -> None:
    """What only looks a little like a secret stays, as text and as JSON."""
    quoted = json.dumps({"content": text})

    assert redactor.redact_text(text) == text
    assert redactor.redact_text(quoted) == quoted


AROUND = st.text("\n\t\"'\\{}[]():;,<>&?#!|`~^*éß日🎉\x00 ", max_size=12)


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(LOOKS)), before=AROUND, after=AROUND, wraps=st.lists(st.booleans(), max_size=4))
def test_a_secret_is_found_in_any_surroundings(kind: str, before: str, after: str, wraps: list[bool]) -> None:
    """Whatever stands around a secret, and however often it was quoted as JSON, it goes and JSON stays JSON."""
    found, secret = LOOKS[kind]
    text = f"{before}{found}{after}"
    for plain in wraps:
        text = json.dumps({"content": [text]}, ensure_ascii=plain)

    clean = REDACTOR.redact_text(text)

    assert secret not in clean
    assert json.dumps(secret)[1:-1] not in clean
    if wraps:
        assert json.loads(clean)["content"]


def test_what_stays_around_a_secret(redactor: Redactor) -> None:
    """Only the secret goes: the text around it, and that it was there, can be read."""
    assert redactor.redact_text("see https://a.org/v1?q=cats&api_key=opensesame&page=2!") == (
        "see https://a.org/v1?q=cats&api_key=[redacted api key]&page=2!"
    )
    assert redactor.redact_text("postgresql://ada:pw1@db:5432/app") == "postgresql://[redacted login]@db:5432/app"


def test_json_stays_json(redactor: Redactor) -> None:
    """JSON that held secrets parses afterwards, number for number."""
    text = json.dumps({"card": 4111111111111111, "password": 123456, "n": 1.5, "nested": json.dumps({"token": "abc"})})

    clean = json.loads(redactor.redact_text(text))

    assert clean == {
        "card": "[redacted card]",
        "password": "[redacted]",
        "n": 1.5,
        "nested": '{"token":"[redacted]"}',
    }


def test_files_are_named_not_shown(redactor: Redactor) -> None:
    """An image in a message is replaced by its type, its size and its hash."""
    text, _ = LOOKS["image"]
    part = json.dumps([{"type": "image_url", "image_url": {"url": text}}])

    (clean,) = json.loads(redactor.redact_text(part))

    assert clean["image_url"]["url"] == "[image/png, 520 bytes, sha256 e7f0893138aeb54e]"
    assert sent(finished(attributes={"raw": b"\x89PNG1234"})).attributes["raw"].startswith("[image/png, 8 bytes, ")


def test_contacts_are_a_switch() -> None:
    """E-mail addresses and phone numbers go only where that is asked for; ids that were set on purpose stay."""
    text = "ada@example.org or +44 20 7946 0958, (555) 123-4567, 030 1234-5678"
    span = finished(attributes={"note": text, "user.id": "ada@example.org", "session.id": "0301 12345678"})

    shown, hidden = sent(span), sent(span, TELEMETRY_REDACT_CONTACTS="true")

    assert shown.attributes["note"] == text
    assert hidden.attributes["note"] == "[redacted e-mail] or [redacted phone], [redacted phone], [redacted phone]"
    assert hidden.attributes["user.id"] == "ada@example.org"
    assert hidden.attributes["session.id"] == "0301 12345678"


def test_own_patterns() -> None:
    """Each line of the setting is an expression of what is taken out as well."""
    span = finished(attributes={"note": "ticket ACME-1234 of Project Nightingale"})

    assert sent(span, TELEMETRY_REDACT_PATTERNS="ACME-\\d+\n(?i)nightingale").attributes["note"] == (
        "ticket [redacted text] of Project [redacted text]"
    )


def test_own_patterns_within_messages() -> None:
    """They mean the text that was said, not the JSON that it stands in: edges, quotes and lines are its own."""
    said = [{"role": "user", "content": f"First:\n{secret}"} for secret in ("EMP-1234", 'key "abc"')]
    span = finished(attributes={"input.value": json.dumps(said), "note": "ACME-77", "other": "x"})

    shown = sent(span, TELEMETRY_REDACT_PATTERNS='\\bEMP-\\d{4}\n^ACME-\\d+$\n"abc"').attributes

    assert not any(secret in str(value) for value in shown.values() for secret in ("EMP-1234", "ACME-77", "abc"))
    assert "First:" in str(shown)


def test_a_line_that_cannot_be_written_is_withheld(caplog: pytest.LogCaptureFixture) -> None:
    """A log line whose values break when it is written breaks nobody, and shows nothing."""
    record = logging.LogRecord("any", logging.INFO, "", 0, "%d items of %s", ("AKIA0000", "x"), None)
    assert LogFilter(Redactor()).filter(record)
    assert record.getMessage() == "[withheld: a log line that cannot be read]"


def test_bad_pattern_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that RE2 cannot run is refused at start, in one sentence that names the setting."""
    monkeypatch.setenv("TELEMETRY_REDACT_PATTERNS", "(?=a)b")

    with pytest.raises(SettingsError, match=r"TELEMETRY_REDACT_PATTERNS.*not an RE2 expression"):
        load_settings()


def test_user_ids_may_be_hashed() -> None:
    """With a key, a user is the same pseudonym in every process, another one under another key."""
    span = finished(attributes={"user.id": "ada@example.org"})

    first, again = (sent(span, TELEMETRY_USER_HASH_KEY="k1").attributes["user.id"] for _ in range(2))
    other = sent(span, TELEMETRY_USER_HASH_KEY="k2").attributes["user.id"]

    assert first == again == "user-" + first.removeprefix("user-")
    assert first != other
    assert "ada" not in first


def test_a_user_in_the_metadata_has_the_same_pseudonym() -> None:
    """The user that a graph's config names is the same one there, and nowhere as he is."""
    metadata = json.dumps({"user_id": "ada", "langfuse_user_id": "ada", "thread_id": "t-1", "langgraph_step": 3})
    span = finished(attributes={"user.id": "ada", "metadata": metadata})

    arrived = sent(span, TELEMETRY_USER_HASH_KEY="k1", TELEMETRY_SHAPE="openinference").attributes

    assert arrived["user.id"].startswith("user-")
    assert json.loads(arrived["metadata"]) == {
        "user_id": arrived["user.id"],
        "langfuse_user_id": arrived["user.id"],
        "thread_id": "t-1",
        "langgraph_step": 3,
    }


SAID = {
    "openinference.span.kind": "TOOL",
    "session.id": "t-1",
    "tool.name": "shell",
    "input.value": "what went in",
    "output.value": "what came out",
    "llm.input_messages.0.message.content": "what went in",
    "langfuse.observation.output": "what came out",
    "llm.token_count.prompt": 12,
}


@pytest.mark.parametrize("shape", ["langfuse", "openinference", "genai", "all"])
@pytest.mark.parametrize(
    ("setting", "gone", "stays"),
    [
        ("OPENINFERENCE_HIDE_INPUTS", "what went in", "what came out"),
        ("OPENINFERENCE_HIDE_OUTPUTS", "what came out", "what went in"),
    ],
)
def test_inputs_and_outputs_may_be_hidden(shape: str, setting: str, gone: str, stays: str) -> None:
    """The switches of OpenInference hold for every span, whoever made it."""
    arrived = sent(finished(attributes=SAID), TELEMETRY_SHAPE=shape, **{setting: "true"})

    assert gone not in str(arrived)
    assert stays in str(arrived)


@pytest.mark.parametrize("shape", ["langfuse", "openinference", "genai", "all"])
def test_metadata_only(shape: str) -> None:
    """Nothing that was said leaves in this mode, in no part of a span; what can be counted does."""
    about = {"exception.type": "lib.TooColdError", "exception.message": "said", "exception.stacktrace": "said"}
    span = finished(
        attributes={**SAID, "somebody's": "said", "list": ["said"], "url.full": "http://a/said"},
        status=Status(StatusCode.ERROR, "said"),
        events=(Event("exception", about, 1), Event("happened", {"what": "said"}, 1)),
    )

    arrived = sent(span, TELEMETRY_SHAPE=shape, TELEMETRY_CONTENT="metadata-only")

    assert not [word for word in ("said", "went in", "came out") if word in str(arrived)]
    assert arrived.attributes["llm.token_count.prompt"] == 12
    assert arrived.attributes["session.id"] == "t-1"
    assert arrived.attributes["gen_ai.tool.name" if shape == "genai" else "tool.name"] == "shell"
    assert arrived.message == "TooColdError"


def test_hostile_text_costs_no_time(redactor: Redactor) -> None:
    """Text made to send other engines backtracking for hours passes in a moment."""
    hostile = [
        "a" * 300_000 + "@",
        "://" + "a:" * 150_000,
        "password" * 40_000,
        "-----BEGIN PRIVATE KEY-----" * 10_000,
        "4 1 " * 80_000,
        "\\" * 300_000 + "u0041",
        '{"a":' * 50_000,
        "eyJ" + "a." * 150_000,
        "curl -u " * 30_000,
        "curl -u a:" * 30_000,
        '["curl","-u",' * 30_000,
        "--password " * 30_000,
        '[["token",' * 30_000,
        '{"name":"token",' * 20_000,
        "\\" * 300_000 + " \\u0041",
        "%25" * 100_000,
        "%" + "25" * 150_000,
        "&" + "amp;" * 60_000 + "lt;",
        "".join(f"&#{number};" for number in range(9999)) * 4,
        "\\ud83d" * 50_000 + "\\uzz",
    ]

    began = time.thread_time()
    for text in hostile:
        redactor.redact_text(text)

    assert time.thread_time() - began < 30


def test_nothing_of_a_user_is_remembered_by_name() -> None:
    """The secret itself is in no name that redaction gives: what it found, and nothing of what it was."""
    text, secret = LOOKS["anthropic"]

    assert secret not in repr(sent(finished(attributes={text: text})).attributes)
    assert OPEN_SESAME not in repr(sent(finished(attributes={"password": OPEN_SESAME})).attributes)


@dataclass
class Holder:
    """What a program may hold something in."""

    text: str
    inner: Any = None


class Model(BaseModel):
    """The same, by pydantic."""

    text: str
    password: SecretStr = SecretStr("x")


class Unwritable:
    """It cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


KEY = LOOKS["anthropic"][0]
VALUES: dict[str, Callable[[], Any]] = {
    "set": lambda: {KEY},
    "frozen set": lambda: frozenset([KEY]),
    "deque": lambda: deque([KEY]),
    "dataclass": lambda: Holder(KEY, Holder(KEY)),
    "model": lambda: Model(text=KEY),
    "exception": lambda: ValueError("bad key " + KEY),
    "path": lambda: Path("/tmp") / KEY,
    "tuple": lambda: (1, (KEY,)),
    "bytes": lambda: KEY.encode(),
    "byte array": lambda: bytearray(KEY.encode()),
    "enumeration": lambda: StrEnum("Kind", {"A": KEY}).A,  # pyright: ignore[reportAttributeAccessIssue] - made here
    "object": lambda: type("Odd", (), {"__str__": lambda _: KEY})(),
    "keys that are no text": lambda: {(1, KEY): 1, 2: {KEY: KEY}},
    "URL": lambda: httpx.URL(f"https://a.org/?token={KEY}"),
}


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_values_of_any_type_are_redacted(make: Callable[[], Any], redactor: Redactor) -> None:
    """Any value becomes one that JSON can hold, without its secrets."""
    assert KEY not in json.dumps(redactor.redact_any({"m": make(), "deep": [make()]}))


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_extra_fields_of_any_type_are_redacted(make: Callable[[], Any], redactor: Redactor) -> None:
    """Whatever an extra field of a log record is, and whichever handler writes it, it holds no secret."""
    record = logging.makeLogRecord({"msg": "it happened", "given": make(), "fine": {"a", "b"}})

    assert LogFilter(redactor).filter(record)
    assert KEY not in f"{record.given} {record.given!r} {record.__dict__}"  # pyright: ignore[reportAttributeAccessIssue] - given above
    assert record.fine == {"a", "b"}  # pyright: ignore[reportAttributeAccessIssue] - given above


@pytest.mark.parametrize("kind", LOOKS)
def test_an_exception_is_redacted_whoever_formats_it(kind: str, redactor: Redactor) -> None:
    """A handler that formats the exception by itself, as those of JSON do, finds no secret in it."""
    text, secret = LOOKS[kind]
    error = ValueError(text)
    error.add_note(text)
    error.__cause__ = KeyError(text)
    record = logging.LogRecord("any", logging.ERROR, "", 0, "failed", (), (ValueError, error, None))

    assert LogFilter(redactor).filter(record)
    itself = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
    assert secret not in itself + str(record.exc_text) + logging.Formatter().format(record)
    assert "ValueError" in logging.Formatter().format(record)


def test_a_group_of_exceptions_is_redacted(redactor: Redactor) -> None:
    """The signs before the lines of a group's exceptions hide no secret, nor a file."""
    error = ExceptionGroup("several", [ValueError(KEY), ValueError(LINES)])
    record = logging.LogRecord("any", logging.ERROR, "", 0, "failed", (), (ExceptionGroup, error, None))

    assert LogFilter(redactor).filter(record)
    written = f"{record.exc_info} {logging.Formatter().format(record)}"
    assert KEY not in written
    assert LINES[100:140] not in written
    assert "ExceptionGroup" in written


def test_what_is_consumed_by_reading_is_named(redactor: Redactor) -> None:
    """Generators and files are not read, what refers to itself ends, what cannot be written is named."""
    numbers, file = (n for n in range(3)), io.StringIO("text")
    endless: list[Any] = [1]
    endless += [endless, endless]
    given = {"numbers": numbers, "file": file, "none": Unwritable(), "count": itertools.count(), "endless": endless}

    clean = redactor.redact_any(given)

    json.dumps(clean)
    assert (list(numbers), file.read()) == ([0, 1, 2], "text")
    assert clean["numbers"] == "[a generator, which is not read]"
    assert clean["none"] == "[a Unwritable that cannot be written]"
