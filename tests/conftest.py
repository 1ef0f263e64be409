"""Every test has a clean environment, dummy keys and no network beyond this machine."""

import os
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, sync_playwright

from telemetry import propagator
from telemetry.settings import Settings
from telemetry.testing import Recorded, recording
from tests.parts import missing

CHROMIUM = "/usr/bin/chromium"
_OURS = ("OTEL_", "LANGFUSE_", "TELEMETRY_", "OPENINFERENCE_", "LANGSMITH_", "LANGCHAIN_", "OPENAI_", "VIEWER_")
DUMMY = {
    "LANGFUSE_PUBLIC_KEY": "pk-lf-test",
    "LANGFUSE_SECRET_KEY": "sk-lf-test",
    "LANGFUSE_HOST": "http://127.0.0.1:9",
}
# What `pytest -m live` sends its turns to.
REAL = {name: value for name, value in os.environ.items() if name.startswith("LANGFUSE_")}


def _stay_here(event: str, args: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple) and not _is_here(str(args[1][0])):
        raise RuntimeError(f"a test wanted to reach {args[1][0]}")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def pytest_configure(config: pytest.Config) -> None:
    """Watch every socket, unless real keys were given and asked for; nothing else is in a hurry."""
    for part in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, part, 60)
    settings.register_profile("calm", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("calm")
    if not (REAL and "live" in config.option.markexpr):
        sys.addaudithook(_stay_here)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser. One at a time: Playwright's loop is this thread's as long as it runs."""
    if not Path(CHROMIUM).exists():
        missing("Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(_OURS):
            monkeypatch.delenv(name)
    for name, value in DUMMY.items():
        monkeypatch.setenv(name, value)


def _trusting() -> Iterator[None]:
    """What is trusted inside is not any more afterwards: a stranger may be given the same port."""
    before = propagator._trusted.copy()
    yield
    propagator._trusted.intersection_update(before)


# A server and its client live as long as a test, or as a file.
trusted_by_test = pytest.fixture(autouse=True)(_trusting)
trusted_by_file = pytest.fixture(scope="module", autouse=True)(_trusting)


@pytest.fixture
def spans(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """Everything is traced into memory; by the recorder where a module asks for both ways."""
    langchain = request.getfixturevalue("langchain") if "langchain" in request.fixturenames else "openinference"
    with recording(Settings.model_construct(langchain=langchain)) as exporter:
        yield exporter


@pytest.fixture(params=["openinference", "recorder"])
def langchain(request: pytest.FixtureRequest) -> str:
    """Each way to record LangChain's runs."""
    return request.param
