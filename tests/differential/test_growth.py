"""What each expression costs when a text that is made for it grows: in calls, exactly, and in CPU time, as a ratio."""

import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from telemetry.export.otlp import from_sdk
from telemetry.export.redact import Redactor, SpanRedactor, patterns
from telemetry.export.redact.patterns import CONTACTS, MAX_CANDIDATES, SECRETS, Finder
from tests.telemetry.planted import finished

LETTERS = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzAbCdEfGhIjKlMn"
# One text for each expression, in their order.
SAMPLES = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n-----END PRIVATE KEY----- ",
    "-----BEGIN PRIVATE KEY-----\n> MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n",
    "Private-Lines: 3 ab\n",
    "data:image/png;base64,aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz==",
    " " + "eyJ" + "hbGciOiJIUzI1.eyJzdWIiOiIx.abc",
    " " + "ghp_" + LETTERS[:36],
    " 1234567890:AA" + LETTERS[:33],
    " 123456789012345|" + LETTERS[:27],
    " " + "sk-" + LETTERS,
    LETTERS[:30] * 4 + "\n" + LETTERS[:30] * 2 + "\n",
    "hooks.slack.com/services/T/B/x ",
    " abc8Q~" + LETTERS[:34],
    LETTERS[:14] + ".atlasv1." + LETTERS[:24],
    "_gitlab_session=" + "ab12" * 8,
    " Bearer " + LETTERS[:24],
    "postgres://app:open-sesame@db ",
    "Cookie: session=abc123\n",
    "password: |\n  open sesame\n",
    'password = "open sesame"\n',
    " auth=open1sesame ",
    '"name": "password", "value": "open"',
    "name = password, value = open ",
    '"value": "open", "x": 1, "name": "password"',
    '[("password", "open1")',
    "--password open1 ",
    "curl -u ada:lovelace x\n",
    "curl\n-u ada:",
    "mysql -popen ",
    "sshpass -p open ",
    "identified by 'open' ",
    "login ada password open ",
    "ENV DB_PASSWORD open ",
    "<password>open</password>",
    '<property name="password">open</property>',
    "?sig=abcdef123456 ",
    " 4111 1111 1111 1111 ",
    "ada@example.org ",
    " +49 30 1234567 ",
    " (212) 555-1234 ",
    " 030 1234567 ",
)
RULES = (*SECRETS, *CONTACTS)
# What has to be read as something else first.
ENCODED = (
    "%C3%A9 ",
    "%252541",
    "password%3D%41bc1 ",
    "&lt;&#39;a&#39;",
    "&amp;amp;lt;",
    "&#x41;&#66;",
    "\\u00e9",
    "\\\\\\u0041",
    "ghp_abc12345\n1b ",
)
PIECES = (*SAMPLES, *ENCODED)
# What a sample that breaks off goes on with.
FILLED_WITH = ("a", " ", "\n", "\\", '"', "A1-b=")
ROUNDS = 10
REDACTOR = Redactor()


def _repeated(piece: str, size: int) -> str:
    return (piece * (size // len(piece) + 1))[:size]


def _crafted(sample: str) -> Iterator[Callable[[int], str]]:
    """Return what texts are made by: of the sample, of its beginnings, and of these with something behind them."""
    yield lambda size: _repeated(f"é{sample}", size)
    for cut in sorted({len(sample) * eighths // 8 or 1 for eighths in (1, 3, 5, 7, 8)}):
        beginning = sample[:cut]
        yield lambda size, piece=beginning: _repeated(piece, size)
        for filling in FILLED_WITH:
            yield lambda size, piece=beginning, filling=filling: (piece + filling * size)[:size]
            yield lambda size, piece=beginning + filling * 300: _repeated(piece, size)


def _calls(work: Callable[[], object]) -> int:
    """Return how many functions are called, those of C among them."""
    count = 0

    def note(_: FrameType, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _least_ratio(redactor: Redactor, text: str, twice: str) -> float:
    """Return how many times the cost of a text that of one of twice its size is, at the least."""
    redactor.redact_text(twice)
    least = float("inf")
    for _ in range(ROUNDS):
        cost = _seconds(lambda: redactor.redact_text(text))
        least = min(least, _seconds(lambda: redactor.redact_text(twice)) / cost)
        if least < 2.5:
            break
    return least


def test_each_expression_has_a_sample() -> None:
    """An expression that is new is measured, too: it is found in its sample, wherever that stands."""
    for sample, rule in zip(SAMPLES, RULES, strict=True):
        assert list(Finder(rule).find(f"{sample} and {sample}")), rule


@pytest.mark.parametrize("piece", PIECES)
def test_calls_grow_as_the_text_does(piece: str) -> None:
    """A text of twice the size takes about twice as many calls; four times as many would be the square."""
    redactor = Redactor(contacts=True)
    for make in _crafted(piece):
        text, twice = make(8_000), make(16_000)
        calls = _calls(lambda text=text: redactor.redact_text(text))
        assert _calls(lambda twice=twice: redactor.redact_text(twice)) < calls * 3 + len(twice) // 4, text[:200]


def test_no_expression_finds_more_than_it_may() -> None:
    """What is left behind so many candidates is withheld."""
    for sample, rule in zip(SAMPLES, RULES, strict=True):
        assert len(Finder(rule).edits(_repeated(sample, 200_000))) <= MAX_CANDIDATES + 1


def test_what_only_begins_like_a_secret_counts() -> None:
    """So is what is behind so many beginnings that do not go on as a key does."""
    assert REDACTOR.redact_text("ghp_abcd1234 " * MAX_CANDIDATES).startswith("ghp_abcd1234 ghp_")
    assert "withheld" in REDACTOR.redact_text("ghp_abcd1234 " * (MAX_CANDIDATES + 1))


def test_a_batch_is_not_looked_at_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of many small texts costs no more than one of a few: the rest is withheld, and the next is whole."""
    monkeypatch.setattr(patterns, "MAX_TOGETHER", 100)
    redact = SpanRedactor(REDACTOR)
    spans = [from_sdk(finished(attributes={"note": "password=x1y2z3w4 " * 30})) for _ in range(5)]

    for _ in range(2):
        notes = "".join(span.attributes["note"] for span in redact.redact_all(spans))
        assert notes.count("[redacted password]") == 100
        assert "x1y2z3w4" not in notes
        assert notes.count("withheld") == 2


@pytest.mark.chaos
@pytest.mark.parametrize("piece", PIECES)
def test_time_grows_as_the_text_does(piece: str) -> None:
    """A text of twice the size takes twice the CPU time, if it is hardly anything but what an expression looks for."""
    redactor = Redactor(contacts=True)
    for make in _crafted(piece):
        assert _least_ratio(redactor, make(200_000), make(400_000)) < 3, make(200)


@pytest.mark.chaos
@pytest.mark.parametrize("piece", PIECES)
def test_a_text_of_5_mb_costs_twice_that_of_half_of_it(piece: str) -> None:
    """So does one that is as long as what a service takes."""
    redactor = Redactor(contacts=True)
    assert _least_ratio(redactor, _repeated(piece, 2_500_000), _repeated(piece, 5_000_000)) < 3
