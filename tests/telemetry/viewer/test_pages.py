"""The pages in a real browser: what they show, and that nothing in a span comes alive."""

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from langfuse import Langfuse
from opentelemetry.trace import Link, Status, StatusCode
from playwright.sync_api import Dialog, Page, expect

from tests.telemetry.viewer.conftest import TRACES, Recorder, Viewer

HOSTILE = (
    '"></pre></details><script>window.pwned = 1; alert(1)</script><img src="http://127.0.0.1:1/x" onerror="alert(1)">'
    '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:1/gone"><svg onload="alert(1)"></svg>'
    '<a href="javascript:alert(1)">me</a><style>@import "http://127.0.0.1:1/s";</style>'
    '<form action="http://127.0.0.1:1/f"><base href="http://127.0.0.1:1/">{{ 7 * 7 }}{% raw %}'
)
SCRIPT = "{}/static/viewer.js"
TRACE = "0af7651916cd43dd8448eb211c80319c"


CALL = {"id": "call_1", "type": "function", "function": {"name": "forecast", "arguments": '{"city": "Paris"}'}}
LANGCHAIN_CALL = {"name": "forecast", "args": {"city": "Paris"}, "id": "call_1"}
SHAPES = {
    "openai": {
        "langfuse.observation.input": json.dumps([{"role": "user", "content": "How is Paris?"}]),
        "langfuse.observation.output": json.dumps({"role": "assistant", "content": "", "tool_calls": [CALL]}),
    },
    "openai parts": {
        "langfuse.observation.input": json.dumps(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "How is Paris?"}]}]}
        ),
        "langfuse.observation.output": json.dumps([{"role": "assistant", "tool_calls": [CALL]}]),
    },
    "openinference": {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "How is Paris?",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "forecast",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"city": "Paris"}',
    },
    "langchain": {
        "input.value": json.dumps(
            {
                "messages": [
                    [
                        {
                            "lc": 1,
                            "type": "constructor",
                            "id": ["langchain", "schema", "messages", "HumanMessage"],
                            "kwargs": {"content": "How is Paris?", "type": "human"},
                        }
                    ]
                ]
            }
        ),
        "output.value": json.dumps(
            {
                "generations": [
                    [
                        {
                            "text": "",
                            "message": {
                                "lc": 1,
                                "type": "constructor",
                                "id": ["langchain", "schema", "messages", "AIMessage"],
                                "kwargs": {
                                    "content": "",
                                    "tool_calls": [LANGCHAIN_CALL],
                                },
                            },
                        }
                    ]
                ]
            }
        ),
    },
    "langchain with data": {
        "input.value": json.dumps({"messages": [{"type": "human", "data": {"content": "How is Paris?"}}]}),
        "output.value": json.dumps(
            {"type": "ai", "data": {"type": "ai", "content": "", "tool_calls": [LANGCHAIN_CALL]}}
        ),
    },
    "langchain dumps": {
        "input.value": json.dumps({"messages": [{"type": "human", "content": "How is Paris?"}]}),
        "output.value": json.dumps({"messages": [{"type": "ai", "content": "", "tool_calls": [LANGCHAIN_CALL]}]}),
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_messages_are_drawn_as_a_chat(viewer: Viewer, recorder: Recorder, page: Page, shape: str) -> None:
    """Whichever way the messages came, they show as a chat with the tool call and its arguments."""
    recorder.tracer.start_span("model", attributes=SHAPES[shape]).end()
    page.goto(viewer.page(viewer.send(recorder.spans)))
    expect(page.locator(".message.user .content")).to_have_text("How is Paris?")
    expect(page.locator(".message.assistant .call header")).to_contain_text("calls forecast")
    expect(page.locator(".message.assistant .call pre")).to_have_text('{\n  "city": "Paris"\n}')


def test_what_is_no_chat_is_shown_as_it_is(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """A list that only resembles messages loses nothing: it is shown as JSON."""
    value = json.dumps([{"role": "user", "content": "x"}, {"rows": 3}])
    recorder.tracer.start_span("tool", attributes={"input.value": value, "output.value": "plain"}).end()
    page.goto(viewer.page(viewer.send(recorder.spans)))
    assert json.loads(page.locator(".side pre").nth(0).inner_text()) == json.loads(value)
    expect(page.locator(".side pre").nth(1)).to_have_text("plain")


def test_a_trace_reads_from_top_to_bottom(viewer: Viewer, recorder: Recorder, page: Page, langfuse: Langfuse) -> None:
    """The SDK's link opens the page: name, user, session, tokens, scores, and each span on a click."""
    before = recorder.tracer.start_span("an earlier turn")
    before.end()
    linked = before.get_span_context()
    common = {"session.id": "t-9", "user.id": "ada", "langfuse.trace.name": "weather"}
    with recorder.tracer.start_as_current_span("turn", attributes=common, links=[Link(linked)]):
        with recorder.tracer.start_as_current_span("model", attributes=common) as model:
            model.set_attributes({"openinference.span.kind": "LLM", "llm.model_name": "demo-model"})
            model.set_attributes({"llm.token_count.prompt": 20, "llm.token_count.completion": 3})
        with recorder.tracer.start_as_current_span("lookup", attributes=common) as tool:
            tool.set_attributes({"openinference.span.kind": "TOOL", "custom.key": "custom value"})
            tool.add_event("cache miss", {"key": "paris"})
            tool.set_status(Status(StatusCode.ERROR, "upstream is gone"))
    trace_id = viewer.send(recorder.spans)
    langfuse.create_score(trace_id=trace_id, name="thumb", value=1, data_type="BOOLEAN", comment="well done")
    langfuse.flush()

    page.goto(str(langfuse.get_trace_url(trace_id=trace_id)))
    expect(page.locator("h1")).to_contain_text("weather")
    expect(page.locator("h1")).to_contain_text("1 error")
    for shown in ("ada", "t-9", "23", "thumb: true", "well done"):
        expect(page.locator(".head")).to_contain_text(shown)
    expect(page.locator(".what")).to_have_text("local viewer, not Langfuse")
    assert page.locator(".row .name").all_inner_texts() == ["turn", "model", "lookup"]

    page.get_by_role("link", name="lookup").click()
    expect(page.locator(".failure.calm")).to_have_count(0)
    detail = page.locator(".detail")
    expect(detail.locator(".failure")).to_have_text("upstream is gone")
    expect(detail).to_contain_text("cache miss")
    expect(page.get_by_text("custom value")).to_be_hidden()
    page.get_by_text("Attributes").click()
    expect(page.get_by_text("custom value")).to_be_visible()
    page.get_by_role("link", name="model").click()
    expect(detail).to_contain_text("demo-model")
    expect(detail).to_contain_text("20 input, 3 output")

    page.locator("#tree").get_by_role("link", name="turn").click()
    detail.get_by_role("link", name="trace").click()
    expect(page.locator("h1")).to_contain_text("an earlier turn")


def test_the_list_has_the_newest_first(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """The first page leads to the traces, by time, each with its name or its root's."""
    for second, name in enumerate(("oldest", "middle", "newest"), 1):
        recorder.tracer.start_span(name, start_time=second * 10**9).end(second * 10**9 + 5)
    viewer.send(recorder.spans)
    page.goto(viewer.url)
    assert page.url == f"{viewer.url}/project/local/traces"
    page.goto(viewer.traces(all="1"))
    assert page.locator("tbody td:first-child").all_inner_texts() == ["newest", "middle", "oldest"]
    page.locator("[data-row]", has_text="middle").click()
    expect(page.locator("h1")).to_contain_text("middle")


def test_an_unknown_trace_says_that_it_may_come(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """The 404 page leads to itself, and to the trace once its spans are there."""
    recorder.tracer.start_span("late").end()
    trace_id = recorder.ids[0][0]
    answer = page.goto(viewer.page(trace_id))
    assert answer
    assert answer.status == 404
    viewer.send(recorder.spans)
    page.get_by_role("link", name="Look again").click()
    expect(page.locator("h1")).to_contain_text("late")


def test_a_trace_as_text(viewer: Viewer, recorder: Recorder) -> None:
    """The same address with .txt is the tree in plain text."""
    with recorder.tracer.start_as_current_span("root"), recorder.tracer.start_as_current_span("leaf"):
        pass
    answer = httpx.get(viewer.page(viewer.send(recorder.spans)) + ".txt", trust_env=False)
    assert answer.text == "root\n  leaf\n"
    assert answer.headers["content-type"].startswith("text/plain")
    assert httpx.get(viewer.page(TRACE) + ".txt", trust_env=False).status_code == 404


def test_nothing_in_a_span_comes_alive(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """Markup in every place that a sender fills stays text: no dialog, no script, no request, no refresh."""
    attributes = {
        HOSTILE: HOSTILE,
        **dict.fromkeys(("session.id", "user.id", "langfuse.trace.name", "llm.model_name"), HOSTILE),
        "langfuse.trace.tags": [HOSTILE],
        "langfuse.observation.type": HOSTILE,
        "langfuse.observation.level": HOSTILE,
        "langfuse.observation.usage_details": json.dumps({HOSTILE: 1}),
        "langfuse.observation.input": json.dumps(
            [{"role": HOSTILE, "content": HOSTILE, "name": HOSTILE, "tool_call_id": HOSTILE, "tool_calls": [CALL]}]
        ),
        "output.value": json.dumps({HOSTILE: HOSTILE}),
    }
    with recorder.tracer.start_as_current_span(HOSTILE, attributes=attributes) as root:
        root.add_event(HOSTILE, {HOSTILE: HOSTILE})
        root.set_status(Status(StatusCode.ERROR, HOSTILE))
        recorder.tracer.start_span("child", links=[Link(root.get_span_context(), {HOSTILE: HOSTILE})]).end()
    trace_id = viewer.send(recorder.spans)
    child = recorder.ids[0][1]
    score = {"traceId": trace_id, "name": HOSTILE, "value": HOSTILE, "comment": HOSTILE}
    assert viewer.client.post("/api/public/scores", json=score).status_code == 200

    requests: list[str] = []
    alive: list[str] = []
    page.on("request", lambda request: requests.append(request.url))

    def dismiss(dialog: Dialog) -> None:
        alive.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    addresses = [
        viewer.traces(),
        viewer.traces(text=HOSTILE[:500], session=HOSTILE, user=HOSTILE, name=HOSTILE, score=HOSTILE),
        viewer.session(HOSTILE),
        viewer.session(HOSTILE + "?"),
        viewer.page(trace_id),
        viewer.page(trace_id, observation=child),
        viewer.page(trace_id, observation=HOSTILE),
        viewer.page(quote(HOSTILE.replace("/", ""))),
    ]
    for address in addresses:
        page.goto(address, wait_until="networkidle")
        assert page.url.split("?")[0] == address.split("?")[0]
        assert page.locator("meta[http-equiv], style, iframe, base, main img, svg[onload], main script").count() == 0
        assert page.eval_on_selector_all("script", "all => all.map(each => each.src)") == [SCRIPT.format(viewer.url)]
        assert page.eval_on_selector_all("form", "all => all.every(each => each.action.startsWith(location.origin))")
        assert page.evaluate("window.pwned") is None
        links = page.eval_on_selector_all("a", "links => links.map(link => new URL(link.href).origin)")
        assert set(links) == {viewer.url}
    assert alive == []
    assert all(url.startswith((viewer.url, "data:,")) for url in requests)
    assert HOSTILE in httpx.get(viewer.page(trace_id) + ".txt", trust_env=False).text


def test_the_policy_is_on_every_answer(viewer: Viewer) -> None:
    """Pages, files, errors and the API forbid everything that is not the viewer's own."""
    for path in (
        "/project/local/traces",
        "/static/viewer.css",
        "/nothing",
        "/api/public/health",
        "/project/local/traces/x",
    ):
        headers = httpx.get(viewer.url + path, trust_env=False).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"


def test_another_name_for_this_machine_is_refused(viewer: Viewer) -> None:
    """A page elsewhere whose name resolves to loopback reads nothing."""
    answer = httpx.get(viewer.url + "/project/local/traces", headers={"host": "evil.example"}, trust_env=False)
    assert answer.status_code == 400


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(viewer: Viewer, recorder: Recorder, page: Page, width: int) -> None:
    """Neither long words nor deep trees make a page scroll sideways, on a phone or a desk."""
    attributes = {
        "user.id": "u" * 300,
        "session.id": "s" * 300,
        "input.value": "v" * 3000,
        "langfuse.trace.name": "n" * 300,
    }
    root = recorder.tracer.start_span("r" * 300, attributes=attributes)
    root.end()
    trace_id = viewer.send(recorder.spans)
    page.set_viewport_size({"width": width, "height": 800})
    for address in (viewer.url, viewer.traces(user="u" * 300), viewer.page(trace_id), viewer.session("s" * 300)):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_odd_trees_are_shown_whole(viewer: Viewer) -> None:
    """Spans that are each other's parents, spans without their parent, and a very deep chain all have a row."""

    def span(number: int, parent: int) -> dict[str, Any]:
        ids = {"traceId": TRACE, "spanId": f"{number:016x}", "parentSpanId": f"{parent:016x}"}
        return ids | {"name": str(number), "startTimeUnixNano": str(number), "endTimeUnixNano": str(number)}

    spans = [span(1, 2), span(2, 1), span(3, 3), span(4, 9999), *(span(n, n - 1) for n in range(5, 2000))]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    assert viewer.client.post(TRACES, json=body).status_code == 200
    answer = viewer.client.get(viewer.page(TRACE, rows="all"))
    assert answer.status_code == 200
    assert answer.text.count('<a class="row') == len(spans)
    assert answer.text.count('<div class="row awaited">') == 1
    assert "root span has not come yet" in answer.text
