import base64
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from app.client import AgentClient
from app.demo.turn import is_whole
from app.schema import EndEvent, RunEvent
from tests import processes
from tests.containers.daemon import base_image, daemon, obstacle
from tests.containers.stack import KEYS, SECRET, Stack

CHROMIUM = "/usr/bin/chromium"
IMAGES = ("agent-telemetry-api", "agent-telemetry-ui", "agent-telemetry-collector")
BASIC = "Basic " + base64.b64encode(":".join(KEYS).encode()).decode()
THROUGH_COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "COLLECTOR_AUTHORIZATION": BASIC}
QUESTION = "What is 12*34?"

pytestmark = pytest.mark.skipif(not os.environ.get("CONTAINERS"), reason="make containers")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if hindrance := obstacle():
        pytest.skip(hindrance)
    with daemon() as engine:
        keys = dict(zip(("VIEWER_PUBLIC_KEY", "VIEWER_SECRET_KEY"), KEYS, strict=True))
        keys |= dict(zip(("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"), KEYS, strict=True))
        stack = Stack(engine, tmp_path_factory.mktemp("stack"), {"BASE": base_image(engine), **keys})
        try:
            stack.compose("--profile", "collector", "build", "--quiet")
            stack.compose("up", "--detach")
            stack.wait_until_well("viewer", "api", "ui")
            yield stack
        finally:
            stack.compose("--profile", "collector", "down", "--volumes", "--timeout", "5")


def ask(stack: Stack) -> str:
    """Return the trace id of one turn."""
    message = AgentClient(stack.service, auth_secret=SECRET).invoke(QUESTION)
    assert message.trace_id
    return message.trace_id


def trees(stack: Stack) -> list[str]:
    """Return the traces that the viewer's first page leads to, as text."""
    page = httpx.get(f"{stack.viewer}/project/local/traces", auth=KEYS, trust_env=False)
    return [stack.tree(trace_id) for trace_id in set(re.findall(r"/project/local/traces/([0-9a-f]{32})", page.text))]


def test_a_turn_is_traced_from_the_page_to_the_viewer(stack: Stack) -> None:
    """A question typed into the chat is answered, and its whole trace is in the viewer, the page's span at the root."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        tab.goto(stack.page)
        tab.get_by_test_id("stChatInputTextArea").fill(QUESTION)
        tab.keyboard.press("Enter")
        expect(tab.get_by_text("408").locator("visible=true").first).to_be_visible(timeout=30_000)
        browser.close()
    processes.until(lambda: any(is_whole(tree) for tree in trees(stack)), complaint=lambda: "\n\n".join(trees(stack)))


def test_traces_pass_through_the_collector(stack: Stack) -> None:
    """With the profile and its address in .env the same turn reaches the viewer by way of the collector."""
    stack.compose("--profile", "collector", "up", "--detach", **THROUGH_COLLECTOR)
    stack.wait_until_well("collector", "api", "ui")
    trace_id = ask(stack)
    processes.until(lambda: " AGENT" in stack.tree(trace_id), 60, lambda: stack.logs("collector"))
    metrics = httpx.get("http://127.0.0.1:8888/metrics", trust_env=False).text
    assert "otelcol_exporter_sent_spans" in metrics


def test_the_service_stops_in_time_and_loses_nothing(stack: Stack) -> None:
    """Stopped amid five turns the service ends by itself within its grace period, and all five traces arrive whole."""
    begun: list[str] = []
    readers = [threading.Thread(target=read_to_the_end, args=(stack, begun)) for _ in range(5)]
    for reader in readers:
        reader.start()
    processes.until(lambda: len(begun) == 5)
    started = time.monotonic()
    stack.compose("stop", "api")
    assert time.monotonic() - started < 30
    state = stack.state("api")
    for reader in readers:
        reader.join(20)
    stack.compose("up", "--detach", "api")
    stack.wait_until_well("api")
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    for trace_id in begun:
        processes.until(lambda trace_id=trace_id: "turn AGENT" in stack.tree(trace_id))


def read_to_the_end(stack: Stack, begun: list[str]) -> None:
    for event in AgentClient(stack.service, auth_secret=SECRET).stream("Tell me a long story"):
        match event:
            case RunEvent(trace_id=str(trace_id)):
                begun.append(trace_id)
            case EndEvent():
                return


def test_images_hold_no_key(stack: Stack) -> None:
    """Neither an image's history nor any of its layers holds a key that was in .env when it was built."""
    archive = stack.folder / "images.tar"
    stack.engine.docker("save", "--output", str(archive), *IMAGES)
    for secret in (SECRET, KEYS[1]):
        for image in IMAGES:
            assert secret not in stack.engine.docker("history", "--no-trunc", image)
        found = subprocess.run(["grep", "--quiet", "--binary-files=text", secret, str(archive)], check=False)
        assert found.returncode == 1
    archive.unlink()


def test_each_image_holds_only_its_own_part(stack: Stack) -> None:
    """The service has no streamlit, the page no agents; neither runs as root nor may write outside its folders."""
    assert stack.execute("api", "import streamlit").returncode != 0
    assert stack.execute("ui", "import langgraph").returncode != 0
    for service in ("api", "ui", "viewer"):
        assert stack.execute(service, "import os; print(os.getuid())").stdout.strip() == "10001"
        assert "Read-only file system" in stack.execute(service, "open('/srv/mark', 'w')").stderr
        assert stack.execute(service, "open('/data/mark', 'w')").returncode == 0


def test_a_missing_secret_is_refused(stack: Stack) -> None:
    """Without AUTH_SECRET, or with an empty one, nothing starts, and the complaint says what to do."""
    for settings in ({}, {"AUTH_SECRET": ""}):
        assert "set it in .env, to 32 characters or more" in stack.refused(settings)


def test_empty_values_count_as_unset(stack: Stack) -> None:
    """A .env that is .env.example with nothing but the secret filled in gives a stack that is well."""
    example = (processes.ROOT / ".env.example").read_text().splitlines()
    empty = {line.removesuffix("="): "" for line in example if line.endswith("=") and not line.startswith("#")}
    stack.compose("up", "--detach", "api", "ui", "viewer", **(empty | stack.settings))
    stack.wait_until_well("viewer", "api", "ui")
