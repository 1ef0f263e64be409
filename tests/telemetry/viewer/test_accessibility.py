"""Every page is clean in axe, and can be read on a phone and in the dark."""

import json
import time
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.axe import violations
from tests.telemetry.viewer.conftest import Recorder, Viewer

PAGES = (
    "overview?since=7d",
    "traces",
    "traces?text=nothing+like+this&user=ada",
    "sessions",
    "users",
    "session?id=talk",
    "traces/{first}",
    "traces/{first}?find=weather&essentials=1",
    "traces/{first}/delete",
    "traces/{first}/dataset",
    "compare?left={first}",
    "compare?left={first}&right={second}",
    "import",
    "prompts",
    "datasets",
    "datasets/asked",
    "experiments",
    "traces/" + "0" * 32,
    "traces?since=yesterday",
)
SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone, dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


@pytest.fixture
def traces(viewer: Viewer, recorder: Recorder) -> dict[str, str]:
    """Two turns with a model, a retriever and a failed tool, one of them rated and in a dataset."""
    messages = [{"role": "user", "content": "What is new?"}, {"role": "assistant", "content": "Rain."}]
    ids = []
    for number in range(2):
        common = {"user.id": "ada", "session.id": "talk", "langfuse.trace.name": "weather", "langfuse.trace.tags": "x"}
        start = time.time_ns() - 10**10
        with recorder.tracer.start_as_current_span("turn", attributes=common, start_time=start) as turn:
            turn.set_attributes({"openinference.span.kind": "AGENT", "input.value": "What is new?"})
            turn.set_attributes({"output.value": "Rain.", "turn.status": ("completed", "failed")[number]})
            with recorder.tracer.start_as_current_span("gpt-5.5", attributes={"llm.model_name": "gpt-5.5"}) as model:
                model.set_attribute("input.value", json.dumps({"messages": messages * 5}))
                model.set_attribute("llm.token_count.prompt", 10)
                model.set_attribute("gen_ai.tool.definitions", json.dumps([{"name": "look", "parameters": {"a": 1}}]))
            with recorder.tracer.start_as_current_span("look", attributes={"openinference.span.kind": "TOOL"}) as tool:
                tool.set_attribute("langfuse.observation.level", "ERROR")
            kind = {"openinference.span.kind": "RETRIEVER", "output.value": json.dumps([{"page_content": "Rain"}])}
            recorder.tracer.start_span("find", attributes=kind).end()
        ids.append(viewer.send(recorder.spans))
    score = {"traceId": ids[0], "name": "thumbs", "value": 1, "comment": "so it was"}
    assert viewer.client.post("/api/public/scores", json=score).status_code == 200
    posted = viewer.client.post(f"/project/local/traces/{ids[0]}/dataset", data={"dataset": "asked"})
    assert posted.status_code == 303
    return {"first": ids[0], "second": ids[1]}


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing(viewer: Viewer, traces: dict[str, str], chromium: Browser, size: str) -> None:
    """No page has a violation, and none is wider than the screen."""
    found: dict[str, list[str]] = {}
    with chromium.new_context(**SIZES[size]) as context:
        page = context.new_page()
        for address in PAGES:
            page.goto(f"{viewer.url}/project/local/{address.format(**traces)}")
            page.locator("details").evaluate_all("all => all.forEach(each => (each.open = true))")
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            problems = [*violations(page), *([f"{wide} pixels too wide"] if wide > 0 else [])]
            found |= {address: problems} if problems else {}
    assert found == {}
