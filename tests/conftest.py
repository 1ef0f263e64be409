"""Every test has a clean environment, dummy keys and no network beyond this machine."""

import os
import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from httpx._transports import default as transports
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, sync_playwright

from telemetry import pipeline
from telemetry.otel.propagator import TrustedHosts
from telemetry.settings import Settings
from telemetry.testing import Receiver, Recorded, recording
from tests.leaks import in_spools, watch
from tests.parts import missing

# Here and not beside the tests that measure: with workers, only this file is read by the process that prints.
pytest_plugins = ["tests.figures"]

CHROMIUM = "/usr/bin/chromium"
_OURS = ("OTEL_", "LANGFUSE_", "TELEMETRY_", "OPENINFERENCE_", "LANGSMITH_", "LANGCHAIN_", "OPENAI_", "VIEWER_")
DUMMY = {
    "LANGFUSE_PUBLIC_KEY": "pk-lf-test",
    "LANGFUSE_SECRET_KEY": "sk-lf-test",
    "LANGFUSE_HOST": "http://127.0.0.1:9",
}
TESTS = Path(__file__).parent
# What takes longest: processes that are killed, databases that are stopped, programs that run in many ways.
SLOW = (
    "app/agents/",
    "app/database/",
    "app/runs/",
    "app/test_browsers.py",
    "app/test_checkpoint_pruning.py",
    "app/test_client_calls.py",
    "app/test_connections.py",
    "app/test_feedback.py",
    "app/test_files.py",
    "app/test_killed_turns.py",
    "app/test_limits.py",
    "app/test_nginx.py",
    "app/test_odd_answers.py",
    "app/test_process.py",
    "app/test_rejoined_turns.py",
    "app/test_retention.py",
    "app/test_sandbox.py",
    "app/test_thread_routes.py",
    "app/test_threads.py",
    "app/test_versions.py",
    "bench/",
    "chaos/",
    "collector/",
    "differential/",
    "telemetry/delivery/test_media.py",
    "telemetry/scores/test_take_back.py",
    "telemetry/test_genai_events.py",
    "telemetry/test_log_export.py",
    "telemetry/test_lru_cache.py",
    "telemetry/viewer/test_api.py",
    "test_dashboards.py",
    "test_demo.py",
    "test_examples.py",
    "test_golden_tools.py",
    "test_langfuse_table.py",
    "test_service_process.py",
    "test_turn_property.py",
    "ui/test_page.py",
)
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


def _tls_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """The TLS context of a call, made once: httpx makes one for each, which takes longer than the call."""
    if verify is not True or cert:
        return httpx.create_ssl_context(verify, cert, trust_env)
    return _default_tls_context(trust_env and tuple(map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR"))))


@cache
def _default_tls_context(certificates: object) -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=bool(certificates))


def pytest_configure(config: pytest.Config) -> None:
    """Watch every socket, unless real keys were given and asked for; nothing else is in a hurry."""
    # Only the order is random: seeded before each test, all of them would make the same trace ids.
    config.option.randomly_reset_seed = False
    for part in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, part, 60)
    transports.create_ssl_context = _tls_context  # pyright: ignore[reportPrivateImportUsage] - there is no other way
    settings.register_profile("calm", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("calm")
    if not (REAL and "live" in config.option.markexpr):
        sys.addaudithook(_stay_here)


def pytest_xdist_auto_num_workers() -> int:
    """Two workers for each core with `-n auto`: much of the tests' time is spent waiting for processes and browsers."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests and those that need a browser, and start files with the latter, then those of few tests.

    These files take longest, and a worker that begins with one of them late would end alone.
    """
    tests = Counter(item.path for item in items)
    with_browser: set[Path] = set()
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
            with_browser.add(item.path)
        if item.path.relative_to(TESTS).as_posix().startswith(SLOW):
            item.add_marker("slow")
    items.sort(key=lambda item: (item.path not in with_browser, tests[item.path]))


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


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    """No planted secret is written to a spool or sent to a backend, whatever a test is about."""
    with pytest.MonkeyPatch.context() as patch, watch(patch) as found:
        yield
    assert found == []


@pytest.fixture(scope="session", autouse=True)
def watched_spools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same for what other processes have left in their spools."""
    yield
    assert in_spools(tmp_path_factory.getbasetemp()) == []


def _trusting() -> Iterator[None]:
    """What is trusted inside is not any more afterwards: a stranger may be given the same port."""
    trusted = pipeline.shared(TrustedHosts)
    before = trusted.copy()
    yield
    trusted.intersection_update(before)


# A server and its client live as long as a test, or as a file.
trusted_by_test = pytest.fixture(autouse=True)(_trusting)
trusted_by_file = pytest.fixture(scope="module", autouse=True)(_trusting)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A backend on loopback."""
    with Receiver() as running:
        yield running


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
