"""Who is let in, and what those see who are not."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest

from app.failed_logins import MAX_FAILURES
from app.settings import load_settings
from telemetry import SettingsError
from tests.service import service, user_token
from ui.settings import load_settings as load_chat_settings

SECRET = "a secret of more than thirty-two characters"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with service(tmp_path, AUTH_SECRET=SECRET) as address:
        yield address


def _login(url: str, bearer: str) -> httpx.Response:
    return httpx.get(f"{url}/info", headers={"Authorization": f"Bearer {bearer}"} if bearer else {})


@pytest.mark.parametrize(
    ("bearer", "words"),
    [
        ("", "There is no bearer token."),
        ("wrong", "The bearer token is not valid."),
        (user_token("ada", SECRET, exp=1), "The token has expired."),
        (jwt.encode({"sub": "ada"}, SECRET, "HS256"), "The token has no exp."),
        (jwt.encode({"exp": 4e9}, SECRET, "HS256"), "The token has no sub."),
        (user_token("../root", SECRET), "The token's sub is not a user id."),
        (user_token("\ud800", SECRET), "The token's sub is not a user id."),
        (user_token("ada", SECRET * 2), "The bearer token is not valid."),
    ],
)
def test_a_login_that_fails_says_why(url: str, bearer: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """The caller and the log learn the reason, and the log nothing of the bearer."""
    answer = _login(url, bearer)

    assert answer.status_code == 401
    assert answer.json()["detail"].startswith(words)
    assert f"a login from 127.0.0.1 failed: {words}" in caplog.messages
    assert not bearer or bearer not in caplog.text


def test_a_token_without_an_end_is_a_setting(tmp_path: Path) -> None:
    """Who wants tokens that are valid for ever says so."""
    with service(tmp_path, AUTH_SECRET=SECRET, AUTH_TOKENS_WITHOUT_EXP="true") as url:
        assert _login(url, jwt.encode({"sub": "ada"}, SECRET, "HS256")).status_code == 200
        assert _login(url, user_token("ada", SECRET, exp=1)).status_code == 401


def test_failed_logins_are_throttled(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """An address that fails again and again has to wait; the secret's holder is served; the log is short."""
    caplog.set_level(logging.WARNING, "app.failed_logins")
    statuses = [_login(url, f"wrong-{number}").status_code for number in range(MAX_FAILURES + 20)]

    refused = _login(url, user_token("ada", SECRET))
    assert statuses == [401] * MAX_FAILURES + [429] * 20
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 61
    assert _login(url, SECRET).status_code == 200
    assert len([record for record in caplog.records if record.name == "app.failed_logins"]) == MAX_FAILURES


def test_a_stranger_sees_states_and_counts_only(url: str) -> None:
    """Without the secret the figures of delivery name no address, folder or error."""
    strangers = httpx.get(f"{url}/health/telemetry").json()
    ours = httpx.get(f"{url}/health/telemetry", headers={"Authorization": f"Bearer {SECRET}"}).json()

    assert strangers.keys() == ours.keys()
    texts = [text for text in json.dumps(strangers).split('"')[1::2] if "/" in text or "." in text]
    assert texts == []


@pytest.mark.parametrize("secret", ["ä" * 32, " " + "x" * 32, "x" * 32 + "\t", "x" * 16 + "\n" + "x" * 16])
def test_a_secret_that_cannot_be_sent_is_refused_at_start(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks at the ends of a secret and letters beyond ASCII are refused by service and chat, in one sentence."""
    monkeypatch.setenv("AUTH_SECRET", secret)
    for load in (load_settings, load_chat_settings):
        with pytest.raises(SettingsError, match=r"AUTH_SECRET.*cannot be sent") as refused:
            load()
        assert secret not in str(refused.value)
