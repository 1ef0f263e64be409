"""One trace in a real browser: choosing, folding and finding spans, and what its messages look like."""

import json
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.telemetry.viewer.conftest import Recorder, Viewer

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
DATA = f"data:image/png;base64,{PNG}"


@pytest.fixture
def deep(viewer: Viewer, recorder: Recorder) -> str:
    """The address of a trace of two nodes with a model and a tool each, and forty spans that say little."""
    start = recorder.tracer.start_as_current_span
    with start("root"):
        for node in ("first", "second"):
            with start(f"{node} node"):
                figures = {"llm.token_count.total": 1_500, "llm.cost.total": 0.25, "output.value": f"{node} answer"}
                with start(f"{node} model", attributes={"openinference.span.kind": "LLM", **figures}):
                    recorder.tracer.start_span(f"{node} request").end()
                recorder.tracer.start_span(f"{node} tool", attributes={"openinference.span.kind": "TOOL"}).end()
        for number in range(40):
            recorder.tracer.start_span(f"step {number:02}").end()
    return viewer.page(viewer.send(recorder.spans))


def names(page: Page) -> list[str]:
    """The names of the rows that can be seen, from the top."""
    return page.locator("#tree li:visible .name").all_inner_texts()


def test_choosing_a_span_changes_its_detail_alone(deep: str, page: Page) -> None:
    """The tree stays where it was, as it was, in the same document; the address and the way back follow."""
    page.goto(deep)
    page.get_by_role("button", name="below first node").click()
    page.evaluate("window.same = true")
    row = page.get_by_role("link", name="step 30")
    row.scroll_into_view_if_needed()
    scrolled = page.evaluate("scrollY")
    assert scrolled > 0
    with page.expect_response(lambda response: "part=detail" in response.url) as answer:
        row.click()
    assert "step 31" not in answer.value.text()
    expect(page.locator("#detail h2")).to_contain_text("step 30")
    expect(row).to_have_attribute("aria-current", "true")
    expect(page.locator("#tree [aria-current=true]")).to_have_count(1)
    assert page.evaluate("scrollY") == scrolled
    assert "first tool" not in names(page)
    assert page.evaluate("window.same")
    chosen = page.url
    assert "observation=" in chosen

    page.get_by_role("link", name="step 31").click()
    expect(page.locator("#detail h2")).to_contain_text("step 31")
    page.go_back()
    expect(page.locator("#detail h2")).to_contain_text("step 30")
    expect(row).to_have_attribute("aria-current", "true")
    page.go_back()
    expect(page.locator("#detail h2")).to_contain_text("root")
    assert page.evaluate("window.same")
    page.goto(chosen)
    expect(page.locator("#detail h2")).to_contain_text("step 30")


def test_a_span_opens_in_a_tab_of_its_own(deep: str, page: Page) -> None:
    """A row is a link like any other to whoever wants a new tab."""
    page.goto(deep)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="second tool").click(modifiers=["ControlOrMeta"])
    expect(opened.value.locator("#detail h2")).to_contain_text("second tool")
    expect(page.locator("#detail h2")).to_contain_text("root")


def test_what_lies_below_a_span_folds(deep: str, page: Page) -> None:
    """Buttons and arrow keys fold and unfold, one or all; keys pass over what is folded away."""
    page.goto(deep)
    whole = names(page)
    node = page.get_by_role("button", name="below first node")
    expect(node).to_have_attribute("aria-expanded", "true")
    node.click()
    expect(node).to_have_attribute("aria-expanded", "false")
    assert names(page) == [name for name in whole if name not in ("first model", "first request", "first tool")]
    page.get_by_role("link", name="first node").focus()
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="second node")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    assert "second model" not in names(page)
    page.keyboard.press("ArrowRight")
    assert "second request" in names(page)
    page.get_by_role("button", name="Unfold all").click()
    assert names(page) == whole
    page.get_by_role("button", name="Fold all").click()
    assert names(page)[:3] == ["root", "first node", "second node"]
    assert "first model" not in names(page)


def test_folds_stay_while_a_trace_grows(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """What comes later appears in its place, and what was folded stays so."""
    with recorder.tracer.start_as_current_span("root"):
        with recorder.tracer.start_as_current_span("node"):
            recorder.tracer.start_span("leaf").end()
        page.goto(viewer.page(viewer.send(recorder.spans)))
        page.get_by_role("button", name="below node").click()
        page.get_by_role("link", name="node").click()
        recorder.tracer.start_span("late").end()
        viewer.send(recorder.spans)
        expect(page.get_by_role("link", name="late")).to_be_visible()
        assert names(page) == ["not ended yet", "node", "late"]
    viewer.send(recorder.spans)
    expect(page.locator("h1")).to_contain_text("completed")
    assert names(page) == ["root", "node", "late"]
    expect(page.locator("#detail h2")).to_contain_text("node")


def test_essentials_and_search_leave_what_matters(deep: str, page: Page, chromium: Browser) -> None:
    """Models, tools, agents and errors alone, or what holds the words, without JavaScript as well."""
    with chromium.new_context(java_script_enabled=False) as context:
        for tab in (page, context.new_page()):
            tab.goto(deep)
            tab.get_by_role("link", name="Essentials").click()
            assert names(tab) == ["first model", "first tool", "second model", "second tool"]
            tab.get_by_role("searchbox").fill("answer SECOND")
            tab.get_by_role("searchbox").press("Enter")
            tab.wait_for_url("**find=*")
            assert names(tab) == ["second model"]
            tab.get_by_role("link", name="second model").click()
            expect(tab.locator("#detail h2")).to_contain_text("second model")
            assert names(tab) == ["second model"]
            tab.get_by_role("link", name="Essentials").click()
            tab.wait_for_url(lambda url: "essentials" not in url)
            tab.get_by_role("searchbox").fill("no such word")
            tab.get_by_role("searchbox").press("Enter")
            expect(tab.get_by_text("No span fits.")).to_be_visible()
            tab.get_by_role("link", name="All spans").click()
            assert len(names(tab)) == 49


def test_rows_and_details_have_tokens_and_cost(deep: str, page: Page) -> None:
    """A model's row says what it used and cost, its detail by kind, the head the sum."""
    page.goto(deep)
    row = page.get_by_role("link", name="first model")
    expect(row).to_contain_text("1,500 tok")
    expect(row).to_contain_text("$0.25")
    expect(page.locator("#head")).to_contain_text("$0.50")


def test_cost_details_are_shown_by_kind(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """What input and output cost stands beside the sum, and a cost of which nothing is known nowhere."""
    details = {"langfuse.observation.cost_details": json.dumps({"input": 0.0001, "output": 1.5})}
    with recorder.tracer.start_as_current_span("priced", attributes=details):
        recorder.tracer.start_span("not priced").end()
    page.goto(viewer.page(viewer.send(recorder.spans)))
    expect(page.locator("#detail dl")).to_contain_text("$1.50 ($0.0001 input, $1.50 output)")
    page.get_by_role("link", name="not priced").click()
    expect(page.locator("#detail h2")).to_contain_text("not priced")
    expect(page.locator("#detail dl")).not_to_contain_text("Cost")


GENAI = {
    "gen_ai.input.messages": [
        {"role": "user", "parts": [{"type": "text", "content": "How is Paris?"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "call_1", "name": "forecast", "arguments": {"city": "Paris"}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": {"sky": "rain"}}]},
    ],
    "gen_ai.output.messages": [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "It rains."}, {"type": "text", "content": "Rainy."}],
            "finish_reason": "stop",
        }
    ],
}


def test_messages_of_the_genai_conventions_are_a_chat(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """Parts are text, calls, answers of tools and reasoning, which is folded away; the list has question and answer."""
    attributes = {name: json.dumps(value) for name, value in GENAI.items()} | {"gen_ai.operation.name": "chat"}
    recorder.tracer.start_span("chat m", attributes=attributes).end()
    page.goto(viewer.page(viewer.send(recorder.spans)))
    expect(page.locator(".message.user .content")).to_have_text("How is Paris?")
    expect(page.locator(".message.assistant .call header")).to_have_text("calls forecast call_1")
    expect(page.locator(".message.tool")).to_contain_text("call_1")
    expect(page.locator(".message.tool .content")).to_have_text('{"sky": "rain"}')
    expect(page.get_by_text("It rains.", exact=True)).to_be_hidden()
    page.get_by_text("Reasoning", exact=True).click()
    expect(page.get_by_text("It rains.", exact=True)).to_be_visible()
    page.goto(viewer.traces())
    expect(page.locator("tbody td").first).to_contain_text("How is Paris?")
    expect(page.locator("tbody td").first).to_contain_text("Rainy.")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Let me think."},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Let me think."}, {"text": "Yes."}]},
        {"role": "assistant", "content": [{"type": "reasoning", "reasoning": "Let me think."}, "Yes."]},
        {"type": "ai", "data": {"content": "Yes.", "additional_kwargs": {"reasoning_content": "Let me think."}}},
    ],
)
def test_reasoning_is_folded_away(viewer: Viewer, recorder: Recorder, page: Page, message: dict[str, Any]) -> None:
    """Whichever way a model's reasoning came, it is there to be opened, apart from the answer."""
    recorder.tracer.start_span("model", attributes={"langfuse.observation.output": json.dumps([message])}).end()
    page.goto(viewer.page(viewer.send(recorder.spans)))
    expect(page.locator(".message > .content")).to_have_text("Yes.")
    page.get_by_text("Reasoning", exact=True).click()
    expect(page.get_by_text("Let me think.", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": DATA}},
        {"type": "image_url", "image_url": DATA},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "mime_type": "image/png", "base64": PNG},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": PNG},
    ],
)
def test_pictures_are_drawn(viewer: Viewer, recorder: Recorder, page: Page, part: dict[str, Any]) -> None:
    """A picture that came in a message is seen, beside the words that came with it."""
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}
    recorder.tracer.start_span("model", attributes={"langfuse.observation.input": json.dumps([message])}).end()
    page.goto(viewer.page(viewer.send(recorder.spans)))
    expect(page.locator(".message.user > .content")).to_have_text("What is it?")
    picture = page.get_by_role("img", name="picture in the message")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 10


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x.png",
        "data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=",
        "data:text/html;base64,PGI+",
        "javascript:alert(1)",
        f'{DATA}" onerror="alert(1)',
    ],
)
def test_pictures_of_elsewhere_are_only_named(viewer: Viewer, recorder: Recorder, page: Page, url: str) -> None:
    """What the viewer would have to fetch, or what is no plain picture, is shown as its address."""
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    recorder.tracer.start_span("model", attributes={"langfuse.observation.input": json.dumps([message])}).end()
    requests: list[str] = []

    def note(request: Request) -> None:
        requests.append(request.url)

    page.on("request", note)
    page.goto(viewer.page(viewer.send(recorder.spans)), wait_until="networkidle")
    assert page.locator("main img").count() == 0
    expect(page.locator(".message.user")).to_contain_text(url[:40])
    assert all(address.startswith((viewer.url, "data:,")) for address in requests)


def test_earlier_messages_are_folded_away(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """Of a long history the last messages are seen, and all of it is a click away."""
    messages = [{"role": "user", "content": f"message {number:03}"} for number in range(200)]
    recorder.tracer.start_span("model", attributes={"langfuse.observation.input": json.dumps(messages)}).end()
    page.goto(viewer.page(viewer.send(recorder.spans)))
    expect(page.locator(".message:visible")).to_have_count(4)
    expect(page.locator("#detail").get_by_text("message 199", exact=True)).to_be_visible()
    page.get_by_text("196 earlier messages", exact=True).click()
    expect(page.locator(".message:visible")).to_have_count(200)


def test_a_trace_is_downloaded_as_a_file(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """The link of a trace's page brings an OTLP/JSON request with its spans."""
    recorder.tracer.start_span("root").end()
    trace_id = viewer.send(recorder.spans)
    page.goto(viewer.page(trace_id))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == f"{trace_id}.json"
    [group] = json.loads(download.value.path().read_text())["resourceSpans"]
    assert group["scopeSpans"][0]["spans"][0]["traceId"] == trace_id


def test_files_are_drawn(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """An uploaded picture and a recording are shown in their message, a document and a drawing are linked."""
    image = upload(viewer, "image/png", b64decode(PNG))
    sound = upload(viewer, "audio/wav", b"RIFF")
    report = upload(viewer, "application/pdf", b"%PDF-1.7")
    drawing = upload(viewer, "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    parts = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}},
    ]
    with recorder.tracer.start_as_current_span("chat") as span:
        span.set_attribute("langfuse.observation.input", json.dumps([{"role": "user", "content": parts}]))
        span.set_attribute("langfuse.observation.output", json.dumps({"report": report, "drawing": drawing}))
    page.goto(viewer.page(viewer.send(recorder.spans)))

    message = page.get_by_role("article")
    expect(message).to_contain_text("Look")
    expect(message).not_to_contain_text("langfuseMedia")
    expect(message.locator("audio")).to_have_attribute("controls", "")
    picture = message.get_by_role("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 10
    linked = page.locator(".side").get_by_role("link", name="/")
    pages = {link.inner_text(): viewer.client.get(str(link.get_attribute("href"))).headers for link in linked.all()}
    assert pages["application/pdf"]["content-type"] == "application/pdf"
    assert pages["image/svg+xml"]["content-disposition"] == "attachment"


def upload(viewer: Viewer, kind: str, content: bytes) -> str:
    """Upload a file as the SDK does; return its reference."""
    digest = b64encode(sha256(content).digest()).decode()
    new = {"contentType": kind, "contentLength": len(content), "sha256Hash": digest, "field": "input", "traceId": "1"}
    announced = viewer.client.post("/api/public/media", json=new).json()
    assert httpx.put(announced["uploadUrl"], content=content).status_code == 200
    return f"@@@langfuseMedia:type={kind}|id={announced['mediaId']}|source=bytes@@@"


def test_a_large_tree_has_pages(viewer: Viewer, recorder: Recorder, chromium: Browser, page: Page) -> None:
    """A page has some hundred rows, leads to those before and after and to all, and opens where a link points."""
    with recorder.tracer.start_as_current_span("root"):
        for number in range(700):
            recorder.tracer.start_span(f"step {number:03}").end()
    address = viewer.page(viewer.send(recorder.spans))
    late = f"{recorder.spans[650].context.span_id:016x}"  # pyright: ignore[reportOptionalMemberAccess]
    with chromium.new_context(java_script_enabled=False) as context:
        for tab in (page, context.new_page()):
            tab.goto(address)
            expect(tab.locator(".rest")).to_contain_text("Rows 1 to 300 of 701")
            assert names(tab) == ["root", *(f"step {number:03}" for number in range(299))]
            expect(tab.get_by_role("link", name="Earlier")).to_have_count(0)
            tab.get_by_role("link", name="Later").click()
            tab.wait_for_url("**rows=300*")
            assert names(tab) == [f"step {number:03}" for number in range(299, 599)]
            tab.get_by_role("link", name="step 310").click()
            expect(tab.locator("#detail h2")).to_contain_text("step 310")
            expect(tab.locator(".rest")).to_contain_text("Rows 301 to 600 of 701")
            tab.get_by_role("link", name="Earlier").click()
            tab.wait_for_url("**rows=0*")
            assert names(tab)[0] == "root"
            tab.goto(f"{address}?observation={late}#{late}")
            expect(tab.locator("#detail h2")).to_contain_text("step 650")
            assert names(tab) == [f"step {number:03}" for number in range(599, 700)]
            tab.get_by_role("link", name="All").click()
            tab.wait_for_url("**rows=all*")
            expect(tab.locator("#tree li")).to_have_count(701)
            expect(tab.locator(".rest")).to_have_count(0)
            tab.get_by_role("searchbox").fill("step 650")
            tab.get_by_role("searchbox").press("Enter")
            tab.wait_for_url("**find=*")
            assert names(tab) == ["step 650"]
